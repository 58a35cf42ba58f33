"""What a site needs beside its pages: descriptions for search engines, footers, 404, sitemap, robots, and no weight that nobody reads."""
import json, re, shutil, subprocess
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from prepare import NBS, PAGE, REPOSITORY, ROOT
from sentiment_nbdev import __version__

PICTURE = ROOT/"results/learning-rate/rates.png"                     # what a link to the site shows elsewhere
VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1" />'
SEARCH = re.compile(r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*')   # for a search as you type, which is off
ICON = r'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+",("[^"]+")'   # as Font Awesome's script writes one
DRAW = """// The icons that this site uses, out of Font Awesome Free (fontawesome.com, CC BY 4.0); its own script has two thousand more.
const ICONS = %s;
function drawIcons() {
  for (const sign of document.querySelectorAll("i[class*='fa-']")) {
    const name = [...sign.classList].map(part => part.slice(3)).find(part => part in ICONS);
    if (!name) continue;
    const [width, height, path] = ICONS[name], icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const attribute of sign.attributes) icon.setAttribute(attribute.name, attribute.value);
    icon.classList.add("svg-inline--fa");
    icon.setAttribute("viewBox", `0 0 ${width} ${height}`);
    icon.setAttribute("aria-hidden", "true");
    icon.innerHTML = `<path fill="currentColor" d="${path}"/>`;
    sign.replaceWith(icon);
  }
}
drawIcons();
document.addEventListener("DOMContentLoaded", drawIcons);
"""
MISSING = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Page not found</title><meta name="robots" content="noindex"><link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark }} body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }} input, button {{ font: inherit; padding: .2em .5em }}</style></head>
<body><main><h1>This page does not exist</h1>
<p>It may have moved: lessons are called after what they teach, such as <a href="{base}tokenization.html">tokenization</a>.</p>
<p><a href="{base}index.html">Home</a> · <a href="{base}tour.html">Start the course</a> · <a href="{base}findings.html">See the results</a> · <a href="{base}api/index.html">API reference</a></p>
<form action="{base}search.html"><label>Search: <input name="q" type="search"></label> <button>Go</button></form></main></body></html>
"""


def describe_page(app, page, template, context, doctree):
    "For Sphinx: the first paragraph of a page, and a picture, for search engines and for whoever shows a link"
    if doctree is None: return
    first = next(iter(doctree.findall(nodes.paragraph)), None)
    told = " ".join(first.astext().split()) if first else ""
    title, base = nodes.Element.astext(next(iter(doctree.findall(nodes.title)), nodes.title())), app.config.html_baseurl
    tags = {"og:title": title, "og:description": told, "og:type": "article", "og:url": f"{base}{page}.html", "og:image": f"{base}{PICTURE.name}",
            "og:image:alt": "Validation accuracy by learning rate: two hills far apart", "og:site_name": app.config.project}
    lines = [f'<meta name="description" content="{escape(told)}" />', *(f'<meta property="{name}" content="{escape(text)}" />' for name, text in tags.items())]
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(lines)


@cache
def changed_on(path: Path) -> str:
    "The day of the last commit that changed a file; empty without git"
    if not shutil.which("git"): return ""
    return subprocess.run(["git", "log", "-1", "--format=%cs", "--", path], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def sign_page(app, page, template, context, doctree):
    "For Sphinx: version, day of the last change, and the way to edit, below every page; a module's page is written in its notebook"
    sources = {place.as_posix(): path for path, place in PAGE.items()} | {f"api/{place.name}": path for path, place in PAGE.items()}
    parts, path = [f"{app.config.project} {__version__}"], sources.get(page, NBS/"index.ipynb")
    if day := changed_on(path): parts.append(f"changed on <time datetime=\"{day}\">{day}</time>")
    if page in sources: parts.append(f'<a href="{REPOSITORY}/edit/main/{path.relative_to(ROOT).as_posix()}">Edit this page</a>')
    context["theme_extra_footer"] = f"<p>{' · '.join(parts)}</p>"


def slim_icons(out: Path, used: set) -> None:
    "Only the icons that the pages and the theme's scripts name"
    place = out/"_static/scripts/fontawesome.js"
    everything = place.read_text()
    if everything.startswith(DRAW[:20]): return                      # a second build into the same folder
    found = {name: re.search(ICON.format(name=re.escape(name)), everything) for name in sorted(used)}
    icons = {name: [int(match[1]), int(match[2]), json.loads(match[3])] for name, match in found.items() if match}
    place.write_text(DRAW % json.dumps(icons))


def finish_site(app, exception):
    "For Sphinx: what can only be done when all pages are there"
    if exception or app.builder.name != "html": return
    out, base, used = Path(app.outdir), app.config.html_baseurl, set()
    for path in [*out.rglob("*.html"), *out.glob("_static/scripts/*theme.js")]:
        text = path.read_text()
        used |= set(re.findall(r"\bfa-([a-z][a-z-]+)", text))
        if path.suffix != ".html": continue
        head, *rest = re.split(r'<meta name="viewport"[^>]*>', text)      # Sphinx and the theme each write one
        if rest: text = head + VIEWPORT + "".join(rest)
        if path.name != "search.html": text = SEARCH.sub("", text)
        path.write_text(text)
    slim_icons(out, used)
    for path in out.rglob("*.map"): path.unlink()                    # for developers of the theme
    pages = "".join(f"<url><loc>{base}{page}.html</loc></url>\n" for page in sorted(app.env.found_docs))
    (out/"sitemap.xml").write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{pages}</urlset>\n')
    (out/"robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n")
    (out/"404.html").write_text(MISSING.format(base=base))
    shutil.copy2(PICTURE, out/PICTURE.name)
