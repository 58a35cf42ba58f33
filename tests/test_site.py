"""The site: built without a warning, and used in a real browser. Without Chromium the browser's tests are skipped."""
import json, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
COURSE = ["settings", "data", "tokenization", "collation", "models", "metrics", "training", "lora", "evidence", "comparison", "prediction"]
ENGINE = ["files", "pictures", "ranges", "ini", "corpus", "readers", "sources", "ends", "labels", "rows", "understand", "encoders", "fast_path", "confidence", "records", "trainer", "checkpoints", "saving", "targets", "loading", "answers", "errors", "attributions", "suspects", "export", "jobs", "runs", "study", "reports", "load", "race", "bench", "cli", "processes"]
MENU = {"Start": ["index", "tour"], "The course": COURSE, "What came out": ["findings", "speed", "gpu", "results"],
        "Under the hood": [f"engine/{name}" for name in ENGINE], "Reference": ["api/index", "glossary", "teaching", "contributing"]}
ORDER = [page for part in list(MENU)[:4] for page in MENU[part]][1:]                  # "next" goes on through the modules
NOTEBOOKS = sorted((ROOT/"nbs").rglob("[!.]*.ipynb"))
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt install chromium)")
pytest.importorskip("sphinx_book_theme")
nbpath2html = pytest.importorskip("nbdev.config").nbpath2html


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The built site; any warning of Sphinx is an error"
    out = tmp_path_factory.mktemp("site")
    for command in ([sys.executable, "docs/prepare.py"], [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-c", "docs", "docs/_src", out]):
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport=dict(width=1440, height=900))
    opened = context.new_page()
    opened.problems = []
    opened.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    # A request that is still under way when the test leaves the page is aborted by the browser: no fault of the site.
    opened.on("requestfailed", lambda request: opened.problems.append(f"{request.failure}: {request.url}") if request.failure != "net::ERR_ABORTED" else None)
    opened.on("response", lambda answer: opened.problems.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    opened.on("request", lambda request: opened.problems.append(f"elsewhere: {request.url}") if not request.url.startswith((address, "data:", "blob:")) else None)
    yield opened
    context.close()


def pages(site): return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)


def soup(path):
    from bs4 import BeautifulSoup
    return BeautifulSoup(path.read_text(), "html.parser")


def test_every_lesson_and_module_has_a_page(site):
    assert {f"{lesson}.html" for lesson in ORDER} | {f"api/{path.stem}.html" for path in (ROOT/"sentiment_nbdev").glob("[a-z]*.py")} <= set(pages(site))
    assert "lora.html.md" in (site/"llms.txt").read_text() and (site/"lora.html.md").is_file()


def test_every_public_name_is_in_the_reference(site):
    from sentiment_nbdev._modidx import d
    listed = (site/"genindex.html").read_text()
    missing = [full for found in d["syms"].values() for full in found if "._" not in full and f"#{full}" not in listed]
    assert not missing


def test_internal_links_and_anchors_lead_somewhere(site):
    parsed = {name: soup(site/name) for name in pages(site)}
    anchors = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in parsed.items()}
    broken = []
    for name, page in parsed.items():
        for tag, attribute in [(tag, "href") for tag in page.find_all("a", href=True)] + [(tag, "src") for tag in page.find_all(src=True)]:
            target, anchor = urldefrag(urljoin(f"/{name}", tag[attribute]))
            if urlparse(target).scheme or target.startswith("//"): continue
            target = unquote(target).lstrip("/").split("?")[0] or "index.html"
            if not (site/target).is_file() or (anchor and target in anchors and unquote(anchor) not in anchors[target]): broken.append((name, tag[attribute]))
    assert not broken


def menu(site):
    "Caption to entries, each an address and a title, of the menu on the home page"
    bar = soup(site/"index.html").select_one("nav.bd-links")
    return {caption.get_text(strip=True): [(link["href"].removesuffix(".html").replace("#", "index"), link.get_text(" ", strip=True)) for link in caption.find_next_sibling("ul").select("li.toctree-l1 > a")]
            for caption in bar.select("p.caption")}


def test_the_menu_is_a_course(site):
    shown = menu(site)
    assert {caption: [address for address, _ in entries] for caption, entries in shown.items()} == MENU
    numbers = {path.stem.split("_", 1)[1]: path.name[:2] for path in NOTEBOOKS if path.name[0].isdigit()}
    titles = {address: title for entries in shown.values() for address, title in entries}
    assert not [name for name, number in numbers.items() if not titles[name].startswith(f"{number} ")]


def test_home_leads_to_the_gpu(site):
    [way] = [link for link in soup(site/"index.html").find("article").find_all("a") if link.get_text() == "Run it on a GPU"]
    assert way["href"].split("#")[0] == "gpu.html"


def test_home_asks_answers_and_shows_three_ways(site):
    "The question, the answer with its two accuracies, the two hills, three ways on, then installation, one table, and provenance in a fold"
    home = soup(site/"index.html").find("article")
    order = ["Is LoRA as good as full fine-tuning?", "right and full fine-tuning", "Start the course", "Run it on a GPU", "See the results", "make demo", "How it was measured"]
    said = " ".join(home.get_text().split())
    places = [said.find(words) for words in order]
    assert -1 < places[0] and places == sorted(places) and -1 not in places
    assert "two hills" in home.find("img")["alt"] and len(home.select("table")) == 2              # the lessons, and what was measured
    [fold] = [fold for fold in home.find_all("details") if fold.summary.get_text() == "How it was measured"]
    sentence = "lora against full (rows and seeds)"                                                # the verdict in words stands in the fold alone
    assert sentence in fold.get_text() and sentence not in said.replace(" ".join(fold.get_text().split()), "")


@pytest.mark.parametrize("lesson", ["tour", *COURSE, "findings", "speed", "gpu"])
def test_a_lesson_opens_with_its_minutes_and_what_it_needs(lesson, site):
    opening = soup(site/f"{lesson}.html").select_one("article h1").find_next_siblings("p")
    assert re.search(r"Before you start: .* Time: \d+ minutes", " ".join(" ".join(part.get_text() for part in opening).split()))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_built_code_solutions_and_imports_are_folded(notebook, site):
    page = soup((site/nbpath2html(notebook.relative_to(ROOT/"nbs"))).with_suffix(".html")).find("article")
    sources = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    titles = [fold.select_one("summary p").get_text() for fold in page.select("details.hide")]
    assert all(title in ("Imports", "Solution") or title.startswith("How it is built: ") for title in titles), titles
    assert titles.count("Solution") == sum("#| code-fold: true" in source for source in sources)
    folded = "".join(fold.get_text() for fold in page.select("details.hide"))
    for name in (name for source in sources if source.startswith("#| export") and "#| unfold" not in source for name in re.findall(r"^(?:def|class) (\w+)", source, re.M)):
        assert re.search(rf"\b{name}\b", folded), name
    for fold in page.select("details.hide"):
        beside = fold.find_next_sibling()
        if fold.select_one("summary p").get_text() == "Solution": assert beside is None, "an answer stands below its fold"


def words(text):
    "The words of markdown or of a page, without what only directs the layout"
    layout = r"<!--.*?-->|</?\w+>|!\[[^\]]*\]\([^)]*\)|\[!\w+\]|^```\w*|\]\([^)]*\)|^\d+\. "
    text = re.sub(layout, " ", text, flags=re.S | re.M)
    return re.findall(r"[^\W_]+", text)


def prose(notebook):
    "The words of each paragraph, in order"
    cells = json.loads(notebook.read_text())["cells"]
    return [words(part) for cell in cells if cell["cell_type"] == "markdown" for part in "".join(cell["source"]).split("\n\n")]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("ending", [".html", ".html.md"])
def test_a_page_says_all_that_its_notebook_says(notebook, ending, site):
    place = (site/nbpath2html(notebook.relative_to(ROOT/"nbs"))).with_suffix(ending)
    said = " ".join(words(soup(place).find("article").get_text(" ") if ending == ".html" else place.read_text()))
    here = 0
    for paragraph in map(" ".join, prose(notebook)):
        found = said.find(paragraph, here)
        assert found >= 0, f"lost or out of order: {paragraph[:200]}"
        here = found + len(paragraph)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_pages_that_run_have_a_button_to_colab(notebook, site):
    "What runs there begins with the install cell; the others have a button to GitHub only"
    page = soup((site/nbpath2html(notebook.relative_to(ROOT/"nbs"))).with_suffix(".html")).find("article")
    runs = '"try: import sentiment_nbdev\\n"' in notebook.read_text()
    buttons = {link.get_text(): link["href"] for link in page.select("p.colab a")}
    assert list(buttons) == ["Open in Colab"] * runs + ["View on GitHub"]
    assert all(address.endswith(notebook.relative_to(ROOT).as_posix()) for address in buttons.values())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_quotes_that_begin_with_bold_words_are_boxes(notebook, site):
    page = soup((site/nbpath2html(notebook.relative_to(ROOT/"nbs"))).with_suffix(".html")).find("article")
    cells = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "markdown"]
    quoted = [title for source in cells for title in re.findall(r"(?<!> )^> \*\*(.+?)\.?\*\*", source, re.M)]
    assert [box.select_one(".admonition-title").get_text() for box in page.select(".admonition.warning, .admonition.note")] == quoted
    assert not [quote for quote in page.select("blockquote") if quote.find("strong")]


def test_no_page_shows_an_object_instead_of_what_it_means(site):
    leak = re.compile(r"<[\w.]+ object|<(?:function|bound method|class) |OptionInfo|\b0x[0-9a-f]{6,}")
    shown = {name: soup(site/name).get_text() for name in pages(site)} | {path.name: path.read_text() for path in site.rglob("*.md")}
    assert not [(name, match[0]) for name, text in shown.items() for match in leak.finditer(text)]


def test_pictures_say_what_they_show(site):
    shown = [(name, image.get("alt", "")) for name in pages(site) for image in soup(site/name).select("article img")]
    shown += [(name, drawing.get("aria-label", "")) for name in pages(site) for drawing in soup(site/name).select("article svg.diagram")]
    assert len(shown) > 23
    assert not [(name, alt) for name, alt in shown if len(alt) < 20 or "_images" in alt]


@needs_browser
def test_pages_load_without_errors_ask_nobody_else_and_fit_a_phone(site, page, address):
    wide = {}
    for name in pages(site):
        page.set_viewport_size(dict(width=1440, height=900))
        page.goto(address + name)
        assert not page.problems, (name, page.problems)
        page.set_viewport_size(dict(width=390, height=844))
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390: wide[name] = width
    assert not wide


def test_pages_say_what_they_are_to_search_engines(site):
    base, listed = "https://sentiment-nbdev.github.io/sentiment_nbdev/", (site/"sitemap.xml").read_text()
    for name in pages(site):
        page = soup(site/name)
        assert len(page.select("meta[name=viewport]")) == 1, name
        if name in ("404.html", "search.html", "genindex.html"): continue
        assert page.select_one("link[rel=canonical]")["href"] == base + name and f"<loc>{base}{name}</loc>" in listed
        assert len(page.select_one("meta[name=description]")["content"]) > 20, name
        picture = page.select_one("meta[property='og:image']")["content"]
        assert picture.startswith(base) and (site/picture.removeprefix(base)).is_file()
    assert f"Sitemap: {base}sitemap.xml" in (site/"robots.txt").read_text()


def test_the_page_for_missing_pages_works_at_any_depth(site):
    "GitHub shows it below every address, so it may not point beside itself"
    page = soup(site/"404.html")
    targets = [tag.get("href") or tag.get("action") for tag in page.select("a[href], [action]")]
    assert len(targets) > 4 and not page.select("[src], link:not([href^='data:'])") and all(target.startswith("https://sentiment-nbdev.github.io/sentiment_nbdev/") for target in targets)
    assert all((site/urlparse(target).path.removeprefix("/sentiment_nbdev/")).is_file() for target in targets)


@needs_browser
def test_pages_are_light(page, address, site):
    "At most 1.5 MB of everything a lesson loads, unless it has formulas, and each icon is drawn"
    sizes = {}
    for lesson in ("index", *ORDER[:15]):
        if "mathjax/" in (site/f"{lesson}.html").read_text(): continue
        loaded = set()
        def note(request): loaded.add(urlparse(request.url).path.lstrip("/"))
        page.on("request", note)
        page.goto(address + f"{lesson}.html")
        page.wait_for_load_state("networkidle")
        page.remove_listener("request", note)
        sizes[lesson] = sum((site/unquote(name)).stat().st_size for name in loaded if (site/unquote(name)).is_file())
        assert not page.locator("i[class*='fa-']").count() and page.locator("svg.svg-inline--fa").count() > 5
    assert len(sizes) > 5 and max(sizes.values()) < 1.5e6, sizes


@needs_browser
@pytest.mark.parametrize("query, page_name", [("LoRA", "lora"), ("tokenization", "tokenization"), ("calibration", "metrics"), ("GPU", "gpu"), ("out of memory", "gpu")])
def test_search_finds_the_lesson_first(query, page_name, page, address):
    page.goto(address + f"search.html?q={query}")
    page.wait_for_function("document.querySelector('.search-summary')?.innerText.includes('found')")
    assert page.locator("#search-results li a").first.get_attribute("href").split("?")[0].split("#")[0] == f"{page_name}.html"


@needs_browser
def test_search_finds_lora(page, address):
    page.goto(address + "search.html?q=LoRA")
    page.locator("#search-results a[href^='lora.html']").first.click()
    assert page.url.split("/")[-1].startswith("lora.html") and page.locator("article h1").first.inner_text().startswith("LoRA")


@needs_browser
def test_theme_switch(page, address):
    page.goto(address + "index.html")
    for mode in ("dark", "light"):
        page.locator(".theme-switch-button:visible").first.click()
        page.locator(f".theme-change-button[data-mode={mode}]:visible").first.click()
        assert page.evaluate("document.documentElement.dataset.theme") == mode


@needs_browser
def test_next_leads_through_the_whole_book(page, address):
    page.goto(address + "index.html")
    for lesson in ORDER:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/{lesson}.html*")
    page.locator("a.left-prev").click()
    page.wait_for_url(f"**/{ORDER[-2]}.html*")


@needs_browser
@pytest.mark.parametrize("lesson", ["tokenization", "collation", "models", "training", "lora", "comparison"])
def test_diagrams_can_be_read_on_a_phone_and_follow_the_theme(lesson, page, address):
    page.set_viewport_size(dict(width=390, height=844))
    page.goto(address + f"{lesson}.html")
    found = page.evaluate("""() => [...document.querySelectorAll("article svg.diagram")].map(svg => {
        const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width
        const words = [...svg.querySelectorAll("text")].map(word => word.getBoundingClientRect())
        const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2
        return {smallest: Math.min(...[...svg.querySelectorAll("text")].map(word => parseFloat(getComputedStyle(word).fontSize) * scale)),
                       outside: words.some(word => word.left < frame.left || word.right > frame.right || word.bottom > frame.bottom),
                       meet: words.some((a, n) => words.slice(n + 1).some(b => meet(a, b)))}})""")
    assert found and not [one for one in found if one["smallest"] < 9 or one["outside"] or one["meet"]]
    def card(mode): return page.evaluate("mode => { document.documentElement.dataset.theme = mode; return getComputedStyle(document.querySelector('svg.diagram .dg-card')).fill }", mode)
    assert (card("light"), card("dark")) == ("rgb(255, 255, 255)", "rgb(27, 33, 41)")


@needs_browser
@pytest.mark.parametrize("lesson", ["training", "findings"])
def test_plots_follow_the_theme_and_have_captions(lesson, page, address):
    "One picture for both: dark pages show it with light and dark exchanged; its caption begins where it begins"
    page.goto(f"{address}{lesson}.html")
    plots = page.locator("article figure:has(img:not(.only-dark, .dark-light))")
    assert plots.count() > 2
    for n in range(plots.count()):
        picture, caption = plots.nth(n).locator("img").first, plots.nth(n).locator("figcaption").first
        assert len(caption.inner_text().split()) > 2
        assert abs(picture.bounding_box()["x"] - caption.bounding_box()["x"]) < 40
        for theme, filtered in (("light", False), ("dark", True)):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            assert ("invert(1)" in picture.evaluate("image => getComputedStyle(image).filter")) == filtered


@needs_browser
def test_what_scrolls_shows_that_it_goes_on(page, address):
    page.set_viewport_size(dict(width=390, height=800))
    page.goto(address + "training.html")
    page.locator("article pre.more-right").first.wait_for()
    wide = page.query_selector("article pre.more-right")
    assert "gradient" in wide.evaluate("box => getComputedStyle(box).maskImage")
    wide.evaluate("box => { box.scrollLeft = box.scrollWidth }")
    page.wait_for_function("box => box.classList.contains('more-left') && !box.classList.contains('more-right')", arg=wide)


def test_every_page_says_its_version_and_where_to_edit_it(site):
    from sentiment_nbdev import __version__
    for name in ("index", "tour", "engine/files", "api/lora"):
        footer = soup(site/f"{name}.html").find("footer", class_="bd-footer-content")
        assert __version__ in footer.get_text() and footer.find("a", string="Edit this page")["href"].endswith(".ipynb")


@needs_browser
def test_an_answer_opens_and_says_why(page, address):
    page.goto(f"{address}lora.html")
    answer = page.locator("#check-yourself details").first
    assert not answer.locator("p").is_visible()
    answer.locator("summary").focus()
    page.keyboard.press("Enter")
    assert answer.locator("p").inner_text().startswith("Yes.") and not page.problems


@needs_browser
def test_copy_button(page, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address + "index.html")
    block = page.locator("div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("make demo")


@needs_browser
@pytest.mark.parametrize("lesson", ["metrics", "speed"])
def test_formulas_are_typeset(lesson, page, address):
    page.goto(address + f"{lesson}.html")
    page.wait_for_selector("mjx-container svg")
    assert not page.locator("mjx-merror").count()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "tokenization", "lora", "comparison", "api/settings"])
def test_no_serious_barrier(name, scheme, browser, address):
    "axe-core's rules for people who use a keyboard, a screen reader or high contrast"
    from axe_playwright_python.sync_playwright import Axe
    context = browser.new_context(viewport=dict(width=1440, height=900), color_scheme=scheme)
    opened = context.new_page()
    opened.goto(address + f"{name}.html")
    opened.wait_for_load_state("networkidle")
    found = [rule for rule in Axe().run(opened).response["violations"] if rule["impact"] in ("serious", "critical")]
    context.close()
    assert not found, [(rule["id"], rule["help"], [node["target"] for node in rule["nodes"][:3]]) for rule in found]
