"""Notebooks to pages for Sphinx, without Quarto and without running any code.

A lesson page shows a notebook as it is: prose, all code, stored outputs. nbdev's own processors clean it. Each module gets an API
page with an entry per public name. Links between notebooks become links between pages, names in backticks links to their entries.

    python docs/prepare.py      # writes docs/_src (pages), docs/_extra (page.html.md, llms.txt) and docs/_static/mathjax
"""
import ast, base64, importlib, inspect, json, os, re, shutil
from functools import cache
from itertools import groupby
from importlib.metadata import files
from pathlib import Path
from typing import Annotated, get_args, get_origin

from fastcore.docments import DocmentText, ShowDocRenderer
from fastcore.nbio import read_nb
from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import nbglob
from nbdev.processors import FilterDefaults, FrontmatterProc, clean_magics, filter_stream_, hide_, hide_line, strip_ansi, strip_hidden_metadata
from sentiment_nbdev._modidx import d as INDEX

ROOT = Path(__file__).resolve().parent.parent
PAGES, EXTRA, MATHJAX = ROOT/"docs/_src", ROOT/"docs/_extra", ROOT/"docs/_static/mathjax"
os.chdir(ROOT)
CONFIG = get_config()
REPOSITORY = INDEX["settings"]["git_url"]
CELL_KEYS = {"cell_type", "id", "metadata", "source", "outputs", "execution_count", "attachments"}
NBS = ROOT/"nbs"
NOTEBOOKS = sorted(path.resolve() for path in nbglob(as_path=True))
PAGE = {path: nbpath2html(path.relative_to(NBS)).with_suffix("") for path in NOTEBOOKS}      # nbs/03_tokenization.ipynb -> tokenization
FLOORS = ("files", "pictures", "ranges", "ini", "corpus", "readers", "sources", "ends", "labels", "rows", "understand", "encoders", "fast_path", "confidence", "records", "trainer", "checkpoints", "saving", "targets", "loading", "answers", "errors", "attributions", "suspects", "export", "jobs", "runs", "study", "reports", "load", "race", "bench", "cli", "processes")
RESULTS = ("12_findings", "13_speed", "14_gpu", "results")                                  # what came out, and your turn
REFERENCE = ("glossary", "teaching", "contributing")                                      # below the modules, in this order
PARTS = {"Start": lambda path: path.stem == "00_tour",
         "The course": lambda path: path.name[0].isdigit() and path.stem not in RESULTS,
         "What came out": lambda path: path.stem in RESULTS,
         "Under the hood": lambda path: path.parent.name == "engine",
         "Reference": lambda path: path.stem in REFERENCE}
MODULES = {module: sorted(full for full in found if not re.search(r"\._", full)) for module, found in sorted(INDEX["syms"].items())}
BUILT = "How it is built: "
HEAD = re.compile(r"\A\s*# .*\n+(> .*(\n|\Z))*")                                     # title and description of a notebook
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")                      # a picture from elsewhere: on the site a plain button
RUNS = "#| hide\ntry: import sentiment_nbdev\n"                                          # how a notebook begins that installs the package
NAMES = {full.removeprefix(module + "."): full for module, found in MODULES.items() if module != "sentiment_nbdev.cli" for full in found}   # commands have common names


class KeepOpening(FrontmatterProc):
    "Takes title and description for the head of the page and leaves the rest of their cell, which nbdev would drop, where it is"
    def _update(self, read, cell):
        opening = BADGE.sub("", HEAD.sub("", cell.source)).strip() if cell.source else ""
        super()._update(read, cell)
        if cell.source is None and opening: cell.source = opening


class Processors(FilterDefaults):
    "Those of nbdev's processors that clean a notebook and leave its code where it is"
    def base_procs(self): return [KeepOpening, strip_ansi, hide_line, filter_stream_, clean_magics, hide_, strip_hidden_metadata]


# Links

def link_names(text: str) -> str:
    "Backtick names of ours become references that Sphinx checks"
    def reference(match):
        full = NAMES.get(match[1].removesuffix("()"))
        return f"{{py:obj}}`{match[1]} <{full}>`" if full else match[0]
    parts = re.split(r"(^```.*?^```|\[[^\]]*\]\([^)]*\)|^#.*?$)", text, flags=re.S | re.M)   # not in code, links and headings
    return "".join(part if n % 2 else re.sub(r"(?<![`}])`([\w.]+(?:\(\))?)`(?!`)", reference, part) for n, part in enumerate(parts))


def link_pages(text: str, path: Path, ending: str = ".ipynb", base: str | None = None) -> str:
    "Links to notebooks become links to pages, below `base` or relative to this page; other files are shown or lie in the repository"
    def target(match):
        file, anchor = (path.parent/match[2]).resolve(), match[3] or ""
        if file in PAGE:
            page = PAGE[file].as_posix() if base is not None else os.path.relpath(PAGE[file], PAGE[path].parent)
            return f"{match[1]}]({base or ''}{page}{ending}{anchor})"
        inside = file.relative_to(ROOT).as_posix()
        if match[1].startswith("!"): return f"{match[1]}]({take_picture(inside, path)})"
        return f"{match[1]}]({REPOSITORY}/blob/main/{inside}{anchor})"
    return re.sub(r"(!?\[[^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)", target, text)


def take_picture(inside: str, path: Path) -> str:
    "Copy a picture of the project beside the pages"
    place = PAGES/"pictures"/inside.replace("/", "-")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT/inside, place)
    return os.path.relpath(place, (PAGES/PAGE[path]).parent)


def caption_pictures(text: str) -> str:
    "A picture that stands alone gets what it shows as a caption, too"
    return re.sub(r"^!\[([^\]]+)\]\(([^)]+\.png)\)$", r"```{figure} \2\n:alt: \1\n\n\1\n```", text, flags=re.M)


def show_diagrams(text: str, path: Path) -> str:
    "Diagrams, in the address of a picture or in a file, become a part of the page: only there they follow the reader's choice of light or dark"
    def drawn(svg): return f'<figure class="diagram-box">\n{svg.strip()}\n</figure>'
    text = re.sub(r"!\[[^\]]*\]\(data:image/svg\+xml;base64,([^)]+)\)", lambda match: drawn(base64.b64decode(match[1]).decode()), text)
    return re.sub(r"!\[[^\]]*\]\((images/\w+\.svg)\)", lambda match: drawn((path.parent/match[1]).read_text()), text)


def show_boxes(text: str) -> str:
    "A quote that begins with bold words becomes a box with these words as its title; everywhere else it reads well as it is"
    def box(match):
        title, rest = re.match(r"\*\*(.+?)\.?\*\*\s*(.*)", re.sub(r"^> ?", "", match[0], flags=re.M), re.S).groups()
        return f":::{{admonition}} {title}\n:class: {'note' if title == 'Note' else 'warning'}\n{rest.strip()}\n:::\n"
    return re.sub(r"^> \*\*.*\n?(?:^>.*\n?)*", box, text, flags=re.M)


# Lessons

def directives(source: str) -> tuple[dict, str]:
    "The `#|` lines at the top of a cell as a dict, and the rest"
    found, lines = {}, source.split("\n")
    while lines and (match := re.match(r"#\|\s*([\w-]+)\s*:?\s*(.*)$", lines[0])): found[match[1]], lines = match[2].strip(), lines[1:]
    return found, "\n".join(lines).strip("\n")


def picture_text(source: str, heading: str, given: str | None) -> str:
    "What a picture shows, for people who cannot see it: what its cell says of it, else what the plotting function says of itself"
    if given: return given
    drawn = [name for name in re.findall(r"\b(plot_\w+)\(", source) if name in NAMES]
    described = [inspect.getdoc(find_symbol(*split_name(NAMES[name]))) for name in dict.fromkeys(drawn)]
    return ". ".join(described).replace("`", "") or f"Figure in the section {heading}"


def made_names(source: str) -> list[str]:
    "What a cell defines: its public names, else its private ones"
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.append(node.name)
        if isinstance(node, ast.Assign): names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name): names.append(node.target.id)
    return [name for name in names if not name.startswith("_")] or names


def fold_title(source: str, notes: dict) -> str | None:
    "What stands over folded code; None for code that stays open"
    if notes.get("code-fold") == "true": return "Solution"
    if all(re.match(r"(from|import)\s|\s|\)|_ = quiet|[A-Z]+ = \w+\(\)$|$", line) for line in source.split("\n")): return "Imports"
    if "export" not in notes or "unfold" in notes: return None           # `#| unfold`: code that is the lesson itself
    return BUILT + ", ".join(f"`{name}`" for name in made_names(source))


def show_folds(app, page, template, context, doctree):
    "For Sphinx: names in the titles of folds are code, and a screen reader hears the title, not `Toggle hidden content`"
    def title(match): return match[1] + re.sub(r"`([^`]*)`", r"<code>\1</code>", match[2])
    body = context.get("body", "").replace('<summary aria-label="Toggle hidden content">', "<summary>")
    if body: context["body"] = re.sub(rf'(<p class="(?:collapsed|expanded) admonition-title">)({BUILT}[^<]*)', title, body)


def code_cell(cell, heading: str) -> dict | None:
    "A code cell with tags instead of directives; None when nothing is left of it"
    notes, source = directives(cell.source)
    if not source: return None
    title = fold_title(source, notes)
    tags = ["remove-input"] if notes.get("echo") == "false" else ["hide-cell"] if title == "Solution" else ["hide-input"] if title else []
    outputs = [out for out in cell.outputs if out.get("data", {}).get("text/markdown", "?")]       # an empty table is no table
    pictured = any(map(is_picture, cell.outputs))
    shown = dict(code_prompt_show=title, code_prompt_hide=title) if title else {}
    if pictured:
        said = picture_text(source, heading, notes.get("fig-alt"))
        shown |= dict(image=dict(alt=said), figure=dict(caption=notes.get("fig-cap", said)))
    return {key: cell[key] for key in CELL_KEYS if key in cell} | dict(source=source, metadata=dict(tags=tags, mystnb=shown), outputs=outputs)


def is_picture(output) -> bool: return "image/png" in output.get("data", {})


def apart(cell: dict) -> list[dict]:
    "A caption belongs to pictures alone: what a cell shows besides them goes into a cell of its own, without code"
    groups = [list(group) for _, group in groupby(cell["outputs"], is_picture)]
    if len(groups) < 2 or "hide-cell" in cell["metadata"]["tags"]: return [cell]
    shown = cell["metadata"]["mystnb"]
    plain = {name: value for name, value in shown.items() if name != "figure"}
    def part(number, outputs):
        tags = ["remove-input"] if number else cell["metadata"]["tags"]
        return cell | dict(id=f"{cell['id']}-{number}", outputs=outputs, metadata=dict(tags=tags, mystnb=shown if is_picture(outputs[0]) else plain))
    return [part(number, outputs) for number, outputs in enumerate(groups)]


@cache
def lesson_cells(path: Path) -> tuple[list[dict], dict]:
    "The cells of a page, and title and description; whoever changes a cell copies it first"
    notebook, cells, heading = read_nb(path), [], ""
    Processors()(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source:
            heading = next(iter(re.findall(r"^#+ (.*)$", cell.source, re.M)), heading)
            cell.source = BADGE.sub(r"[Open in Colab](\1)", cell.source)
            cells.append({key: cell[key] for key in CELL_KEYS if key in cell})
        elif cell.cell_type == "code" and (kept := code_cell(cell, heading)): cells += apart(kept)
    return cells, getattr(notebook, "frontmatter_", {})


def title_cell(path: Path, about: dict) -> dict:
    "Title, one-sentence description, and the ways to the notebook and, when it runs there, to Colab"
    cells = read_nb(path).cells
    badge = BADGE.search(cells[0].source) if any(cell.source.startswith(RUNS) for cell in cells) else None
    colab = f"[Open in Colab]({badge[1]}) " if badge else ""
    source = f"{REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()}"
    text = f"# {about.get('title', path.stem)}\n\n{{.lead}}\n{about.get('description', '')}\n\n{{.colab}}\n{colab}[View on GitHub]({source})"
    return dict(cell_type="markdown", id="title", metadata={}, source=link_pages(text, path))


def lesson_page(path: Path) -> str:
    "A notebook for MyST-NB as JSON"
    cells, about = lesson_cells(path)
    cells = list(cells)
    for n, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            prose = caption_pictures(link_pages(show_diagrams(show_boxes(cell["source"]), path), path))
            cells[n] = cell | dict(source=link_names(prose))
    extra = [dict(cell_type="markdown", id="toc", metadata={}, source=contents())] * (path.stem == "index")
    kernel = dict(kernelspec=dict(display_name="Python 3", language="python", name="python3"), language_info=dict(name="python"))
    return json.dumps(dict(cells=[title_cell(path, about), *cells, *extra], metadata=kernel, nbformat=4, nbformat_minor=5), indent=1)


def menu_entry(path: Path) -> str:
    "A page in the menu, under the number that the text calls it by"
    title, number = lesson_cells(path)[1].get("title", path.stem), re.match(r"\d+", path.name)
    return f"{number[0]} {title} <{PAGE[path].as_posix()}>" if number else PAGE[path].as_posix()


def contents() -> str:
    "The menu: the parts of the book, each page in the first part that it belongs to"
    parts, taken = [], {NBS/"index.ipynb"}
    for caption, belongs in PARTS.items():
        paths = sorted((path for path in NOTEBOOKS if path not in taken and belongs(path)), key=place_in_part)
        taken |= set(paths)
        pages = [menu_entry(path) for path in paths]
        if caption == "Start": pages.insert(0, "Home <self>")
        if caption == "Reference": pages.insert(0, "api/index")
        parts.append("\n".join([f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *pages, "```"]))
    if left := set(NOTEBOOKS) - taken: raise SystemExit(f"{sorted(left)[0].name} belongs to no part of the menu: name it in PARTS")
    return "\n\n".join(parts)


def place_in_part(path: Path) -> tuple:
    "The engine from the ground up, other parts as they are listed, the course by its numbers"
    floors = FLOORS if path.parent.name == "engine" else RESULTS + REFERENCE
    return floors.index(path.stem) if path.stem in floors else len(floors), path.name


# API reference

def entry_fields(symbol) -> list[str]:
    "Docments, or what the settings say of themselves, as a field list"
    if helps := {f.name: f.metadata["help"] for f in getattr(symbol, "__dataclass_fields__", {}).values() if "help" in f.metadata}:
        return [f":param {name}: {as_rst(text)}" for name, text in helps.items() if name in symbol.__annotations__]
    shown = ShowDocRenderer(symbol).dm
    docments = shown.dm if isinstance(shown, DocmentText) else {}
    def text(part): return as_rst(" ".join(part["docment"].split()))
    lines = [f":param {name}: {text(part)}" for name, part in docments.items() if name != "return" and part.get("docment")]
    returned = docments.get("return", {})
    return lines + ([f":returns: {text(returned)}"] if returned.get("docment") else [])


def find_symbol(module: str, path: str):
    "The object that is called so in a module"
    symbol = importlib.import_module(module)
    for part in path.split("."): symbol = getattr(symbol, part)
    return symbol


def split_name(full: str) -> tuple[str, str]:
    "The module of a full name, and the rest"
    module = ".".join(full.split(".")[:2])
    return module, full.removeprefix(module + ".")


def as_rst(text: str) -> str:
    "Prose with backticks as reStructuredText: our names become links, other names code"
    parts = re.split(r"`([^`]+)`", re.sub(r"([*|_\\])", r"\\\1", text))
    def shown(name): return f":py:obj:`{name} <{NAMES[plain]}>`" if (plain := name.removesuffix("()")) in NAMES else f"``{name}``"
    return "".join(shown(part.replace("\\", "")) if n % 2 else part for n, part in enumerate(parts))


def describe_entry(app, what, name, symbol, options, lines):
    "For autodoc: names in backticks become links, docments become fields; a module's own sentence stands on its page already"
    fields = entry_fields(symbol) if what in ("class", "function", "method") else []
    lines[:] = [as_rst(line) for line in lines] + [""] + fields if what != "module" else []


def plain_types(app, symbol, bound):
    "For autodoc: what stands behind the type of a command's flag is for typer"
    for name, hint in getattr(symbol, "__annotations__", {}).items():
        if get_origin(hint) is Annotated: symbol.__annotations__[name] = get_args(hint)[0]


def source_link(domain, info) -> str | None:
    "For linkcode: where the code of an object is in the repository"
    symbol = find_symbol(info["module"], info["fullname"])
    try: line = inspect.getsourcelines(getattr(symbol, "fget", symbol))[1]
    except (TypeError, OSError): return None          # a constant
    return f"{REPOSITORY}/blob/main/{info['module'].replace('.', '/')}.py#L{line}"


def module_summary(module: str) -> str:
    "The first sentence of a module"
    return (importlib.import_module(module).__doc__ or "").split("\n\nDocs:")[0].strip()


def api_page(module: str, lesson: str) -> str:
    "All entries of a module, by Sphinx's autodoc"
    return (f"# {module}\n\n{module_summary(module)}\n\nThe lesson that builds it: [{Path(lesson).name}](../{lesson}.ipynb)\n\n"
            f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :no-index:\n```\n").replace("   :no-index:\n", "")


def api_index(modules: list[str]) -> str:
    "The list of modules"
    rows = "\n".join(f"| [{name}]({name}.md) | {module_summary(f'sentiment_nbdev.{name}')} |" for name in modules)
    toc = "\n".join(f"{name} <{name}>" for name in modules)               # short in the menu
    return f"# API reference\n\nEvery public name, by module; {{ref}}`all names <genindex>` in alphabetical order.\n\n| module | what it holds |\n|:--|:--|\n{rows}\n\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n"


# Plain text for machines

def plain_page(path: Path) -> str:
    "A lesson as plain markdown, outputs as text, pictures as what they show"
    cells, about = lesson_cells(path)
    parts = [f"# {about.get('title', path.stem)}", f"> {about.get('description', '')}"]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            told = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"(Picture: \1)", cell["source"])
            parts.append(link_pages(told, path, ".html.md", f"{CONFIG.doc_url.rstrip('/')}/"))
            continue
        if "remove-input" not in cell["metadata"].get("tags", []): parts.append(f"```python\n{cell['source']}\n```")
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if "text/markdown" in data: parts.append("".join(data["text/markdown"]).rstrip())
            elif is_picture(out): parts.append(f"(Picture: {cell['metadata']['mystnb']['image']['alt']})")
            elif (text := "".join(out.get("text", data.get("text/plain", ""))).rstrip()):
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def llms_txt() -> str:
    "The map of the site for language models (llmstxt.org)"
    lines = [f"- [{about.get('title')}]({CONFIG.doc_url.rstrip('/')}/{PAGE[path].as_posix()}.html.md): {about.get('description', '')}"
             for path in NOTEBOOKS if (about := lesson_cells(path)[1]) and path.stem != "index"]
    about = lesson_cells(NBS/"index.ipynb")[1]
    return f"# {CONFIG.title}\n\n> {about['description']}\n\n## Lessons\n\n" + "\n".join(lines) + "\n"


def take_mathjax():
    "One self-contained file, so that no page asks another host for its formulas"
    found = next(file for file in files("sphinx-mathjax-offline") if file.name == "tex-svg-full.js")
    MATHJAX.mkdir(parents=True, exist_ok=True)
    shutil.copy2(found.locate(), MATHJAX/found.name)


def main():
    for folder in (PAGES, EXTRA, MATHJAX): shutil.rmtree(folder, ignore_errors=True)
    for folder in (PAGES/"api", PAGES/"engine", EXTRA/"engine"): folder.mkdir(parents=True)
    for path in NOTEBOOKS:
        (PAGES/f"{PAGE[path]}.ipynb").write_text(lesson_page(path))
        (EXTRA/f"{PAGE[path]}.html.md").write_text(plain_page(path))
    lessons = {page.name: page.as_posix() for page in PAGE.values()}
    modules = [module.split(".")[-1] for module in MODULES]
    for name in modules: (PAGES/"api"/f"{name}.md").write_text(api_page(f"sentiment_nbdev.{name}", lessons[name]))
    (PAGES/"api/index.md").write_text(api_index(modules))
    (EXTRA/"llms.txt").write_text(llms_txt())
    take_mathjax()


if __name__ == "__main__": main()
