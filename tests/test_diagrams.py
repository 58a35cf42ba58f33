"""The diagrams: drawn by docs/diagrams.py, stored as files and inside the notebooks that show them."""
import base64, json, re, sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"docs"))
from diagrams import DRAWN, diagram

NOTEBOOKS = sorted((ROOT/"nbs").glob("[!.]*.ipynb"))


def shown(notebook):
    "The diagrams of a notebook as the texts of SVG files"
    prose = "\n".join("".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "markdown")
    inside = [base64.b64decode(data).decode() for data in re.findall(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([^)]+)\)", prose)]
    return inside + [(ROOT/"nbs"/name).read_text() for name in re.findall(r"!\[[^\]]+\]\((images/\w+\.svg)\)", prose)]


@pytest.mark.parametrize("name", DRAWN)
def test_files_are_what_the_code_draws(name):
    assert (ROOT/f"nbs/images/{name}.svg").read_text() == diagram(name), "run python docs/diagrams.py"


def test_every_diagram_is_shown_once_as_it_is_drawn():
    assert sorted(svg for notebook in NOTEBOOKS for svg in shown(notebook)) == sorted(map(diagram, DRAWN)), "run python docs/diagrams.py"


@pytest.mark.parametrize("name", DRAWN)
def test_a_diagram_opens_says_what_it_shows_and_asks_nobody(name):
    root = ElementTree.fromstring(diagram(name))
    left, top, width, height = map(float, root.get("viewBox").split())
    assert root.get("role") == "img" and len(root.get("aria-label")) > 80 and width <= 360
    assert all(0 <= float(box.get("x", 0)) and float(box.get("x", 0)) + float(box.get("width")) <= width for box in root.iter("{*}rect"))
    style = root.find("{*}style").text
    assert "prefers-color-scheme:dark" in style and min(float(size) for size in re.findall(r"([\d.]+)px", style) if float(size) > 3) >= 10
    assert re.findall(r"https?://[^\"]+", diagram(name)) == ["http://www.w3.org/2000/svg"]
