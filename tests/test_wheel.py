"""The wheel alone, in an empty folder: no file of the checkout is at hand."""
import os, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/"nbs").rglob("[!.]*.ipynb"))
RUN = """
import sys
from fastcore.nbio import read_nb
from execnb.shell import CaptureShell
notebook = read_nb(sys.argv[1])
notebook.cells = [cell for cell in notebook.cells if "#| slow" not in cell.source]
CaptureShell().run_all(notebook, exc_stop=True)
import sentiment_nbdev
print(sentiment_nbdev.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The wheel, unpacked into a folder of its own"
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    (folder/"source").mkdir()                                    # a copy: an older build folder would leak into the wheel
    for name in ("sentiment_nbdev", "results", "pyproject.toml", "README.md", "LICENSE"):
        (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, folder/"source"/name)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, folder/"source"], check=True, capture_output=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", folder/"site", *folder.glob("*.whl")], check=True, capture_output=True)
    return folder/"site"


def test_records_travel_with_the_package(installed):
    code = "from sentiment_nbdev.records import results_folder; print(results_folder())"
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(installed)}, cwd=installed, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(installed/"sentiment_nbdev"/"results")
    def data(folder): return {path.relative_to(folder) for kind in ("*.json", "*.safetensors") for path in folder.rglob(kind)}
    assert data(ROOT/"results") == data(installed/"sentiment_nbdev"/"results")


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_the_wheel(notebook, installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run([sys.executable, "-c", RUN, notebook], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines()[-1].startswith(str(installed))
