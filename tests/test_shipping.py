"""What goes out: nothing that runs foreign code, one version, the same words in every place."""
import ast, os, re, subprocess, sys, tomllib
from pathlib import Path

import pytest
import sentiment_nbdev

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT/"sentiment_nbdev").glob("*.py"))
FORBIDDEN = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_module_runs_foreign_code(module):
    "No eval or exec, no pickle, no remote code; weights are asked for as safetensors"
    tree = ast.parse(module.read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not called & FORBIDDEN and not imported & {"pickle", "marshal", "shelve", "joblib", "dill"}
    assert "trust_remote_code" not in module.read_text() and "torch.load" not in module.read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AutoModelForSequenceClassification.from_pretrained"):
            assert any(keyword.arg == "use_safetensors" for keyword in node.keywords)


@pytest.mark.parametrize("kind, name", [("whole", "pytorch_model.bin"), ("adapter", "adapter_model.bin")])
def test_a_pickle_is_refused_with_the_reason(kind, name, saved, command, tmp_path):
    import shutil
    shutil.copytree(saved/kind, tmp_path/kind)
    next((tmp_path/kind).glob("*.safetensors")).rename(tmp_path/kind/name)
    code, out, err = command("predict", tmp_path/kind, "a joy")
    assert (code, out) == (2, "") and "pickle" in err and len(err.splitlines()) == 1


def test_one_version():
    assert f"version: {sentiment_nbdev.__version__}\n" in (ROOT/"CITATION.cff").read_text()
    assert f"## {sentiment_nbdev.__version__}" in (ROOT/"CHANGELOG.md").read_text()


def test_addresses_are_those_of_the_project():
    about = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]
    citation = (ROOT/"CITATION.cff").read_text()
    for address in about["urls"].values(): assert address in citation
    assert about["license"] in citation


def test_security_names_tests_that_are_there():
    for name in re.findall(r"`(tests/\w+\.py)`", (ROOT/"SECURITY.md").read_text()): assert (ROOT/name).is_file()


@pytest.mark.slow
def test_types(tmp_path):
    "py.typed is a promise: mypy finds nothing to object to (pyproject.toml says what it does not look at)"
    assert (ROOT/"sentiment_nbdev/py.typed").is_file()
    run = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


DEVELOPERS = ("ipython", "ipykernel", "fastcore", "nbdev", "execnb", "_pytest", "pytest", "hypothesis", "sphinx", "myst", "bs4", "playwright", "mypy", "dask", "distributed", "ray")


def test_the_package_needs_only_what_it_names(tmp_path):
    "Every module can be imported where nothing is installed that only developers install"
    site = tmp_path/"site"
    site.mkdir()
    for path in Path(pytest.__file__).parent.parent.iterdir():
        if not path.name.lower().startswith(DEVELOPERS): (site/path.name).symlink_to(path)
    code = (f"for name in {[path.stem for path in MODULES if not path.stem.startswith('__')]}: __import__('sentiment_nbdev.' + name)\n"
            "import transformers.trainer, peft, datasets\nprint('all')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))}
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == "all\n", run.stderr
