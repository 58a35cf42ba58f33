"""The house rules: what is generated is generated, imports go down only, functions stay short, nothing speaks of a machine."""
import ast, json, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest
from sentiment_nbdev.ini import load_settings
from sentiment_nbdev.settings import PROFILES, profile_settings

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT/"sentiment_nbdev"
FLOORS = ["files", "pictures", "ranges", "settings", "ini", "corpus", "readers", "sources", "ends", "labels", "rows", "understand", "data", "tokenization", "collation", "encoders", "models", "fast_path", "metrics", "confidence", "evidence", "records", "trainer", "training",
          "checkpoints", "saving", "targets", "lora", "loading", "prediction", "answers", "errors", "attributions", "suspects", "export", "jobs", "runs", "study", "reports", "comparison", "load", "race", "bench", "cli"]
MODULES = [name for name in FLOORS if (LIBRARY/f"{name}.py").exists()]
NOTEBOOKS = sorted((ROOT/"nbs").rglob("[!.]*.ipynb"))
COURSE = [path for path in NOTEBOOKS if re.match(r"\d\d_", path.name)]          # lessons, in the order in which they are read
ENGINE = [path for path in NOTEBOOKS if path.parent.name == "engine"]           # what is under the hood


def cells(notebook, kind="code"):
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def written(notebook):
    "Code cells without the one that tools/colab.py puts into every lesson"
    return [source for source in cells(notebook) if not source.startswith("#| hide\ntry: import sentiment_nbdev")]


def test_every_module_has_a_floor():
    assert {path.stem for path in LIBRARY.glob("*.py")} - {"__init__", "__main__", "_modidx"} == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module):
    tree = ast.parse((LIBRARY/f"{module}.py").read_text())
    used = {(node.module or "").removeprefix("sentiment_nbdev.").split(".")[0] for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("sentiment_nbdev"))}
    above = [name for name in used if FLOORS.index(name) >= FLOORS.index(module)]
    assert not above, f"{module} imports from {above}"
    assert not any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short_and_documented(module):
    tree = ast.parse((LIBRARY/f"{module}.py").read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef): continue
        body = node.end_lineno - node.body[0].lineno + 1
        assert body <= 20, f"{module}.{node.name} has {body} lines"
    public = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]
    assert not [node.name for node in public if not ast.get_docstring(node)]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short(notebook):
    lengths = sorted(len([line for line in source.split("\n") if line.strip()]) for source in written(notebook))
    assert not lengths or lengths[len(lengths) // 2] <= (8 if notebook in ENGINE else 6)       # the engine has fewer cells that only show
    assert not lengths or lengths[-1] <= 30


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_lines_are_short(notebook):
    "The site shows about 120 characters beside its menu on a laptop; what is longer has to be scrolled sideways"
    assert not [line for source in cells(notebook) for line in source.split("\n") if len(line) > 130 and not line.startswith(("#| fig-alt", "#| fig-cap"))]


def shown_soon(notebook, window):
    "Public names of a lesson, each with whether one of the next cells that are not exported uses it"
    code = cells(notebook)
    for here, source in enumerate(code):
        if not source.startswith("#| export"): continue
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                yield node.name, any(re.search(rf"\b{node.name}\b", later) for later in code[here + 1:here + 1 + window] if "#| export" not in later)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_exported_is_soon_shown_in_use(notebook):
    "Within five cells; the commands anywhere in their notebook, because they need the whole command line"
    shown = dict(shown_soon(notebook, 1000 if notebook.stem == "cli" else 5))
    assert sum(shown.values()) >= 0.9 * len(shown), [name for name, seen in shown.items() if not seen]


@pytest.mark.parametrize("notebook", COURSE, ids=lambda path: path.stem)
def test_lessons_have_their_parts(notebook):
    prose = "\n".join(cells(notebook, "markdown"))
    for part in ("**You will learn**", "**Time:**", "## Summary", "## Exercises"): assert part in prose, part
    assert sum("assert" in source or "test_" in source or "expect_fail" in source for source in cells(notebook)) >= 5


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.stem[:2].isdecimal() and 2 <= int(path.stem[:2]) <= 11], ids=lambda path: path.stem)
def test_each_question_has_one_right_answer(notebook):
    "A question in bold, then its answers, each a fold that begins with Yes or No"
    [quiz] = [source.split("## Check yourself")[1].split("## Exercises")[0] for source in cells(notebook, "markdown") if "## Check yourself" in source]
    questions = re.split(r"^\*\*.*\?.*\*\*$", quiz, flags=re.M)[1:]
    assert len(questions) >= 2
    for question in questions:
        answers = re.findall(r"<details><summary>.+</summary>\n\n(Yes|No)[,.] .+\n\n</details>", question)
        assert sorted(answers) == ["No"] * (len(answers) - 1) + ["Yes"] and len(answers) >= 3 and question.count("<details>") == len(answers)


@pytest.mark.parametrize("notebook", COURSE, ids=lambda path: path.stem)
def test_a_lesson_is_a_lesson(notebook):
    "Its pay-off comes before the twelfth cell, prose is at least 0.7 of the code in words, and at most twelve names are public"
    listed = json.loads(notebook.read_text())["cells"]
    assert any(cell.get("outputs") for cell in listed[:12])
    prose = [re.sub(r"\(data:[^)]*\)", "", source) for source in cells(notebook, "markdown")]
    said, coded = (sum(len(re.findall(r"\w+", source)) for source in sources) for sources in (prose, written(notebook)))
    names = [name for name, _ in shown_soon(notebook, 1)]
    assert said >= 0.7 * coded, f"{said / coded:.2f}"
    assert len(names) <= 12, names


@pytest.mark.parametrize("notebook", ENGINE, ids=lambda path: path.stem)
def test_the_engine_is_literate_too(notebook):
    prose = "\n".join(cells(notebook, "markdown"))
    for part in ("**You will learn**", "**Time:**", "## Summary"): assert part in prose, part
    assert sum("assert" in source or "test_" in source or "expect_fail" in source for source in cells(notebook)) >= 5


@pytest.mark.parametrize("notebook", COURSE + ENGINE, ids=lambda path: path.stem)
def test_lessons_install_the_package_where_it_is_missing(notebook):
    first = next(source for source in cells(notebook) if not source.startswith("#| default_exp"))
    assert first.startswith("#| hide\ntry: import sentiment_nbdev\n")            # tests/test_colab.py knows the rest


def test_student_copies_hold_no_solution():
    subprocess.run([sys.executable, ROOT/"tools/make_student.py"], check=True, capture_output=True)
    copies = sorted((ROOT/"build/student").rglob("*.ipynb"))
    folded = [source for copy in copies for source in cells(copy) if "code-fold" in source]
    assert len(copies) == len(NOTEBOOKS) and not folded
    assert sum(source.strip() == "# your answer" for copy in copies for source in cells(copy)) > 40


def test_export_and_clean_leave_no_difference(tmp_path):
    for name in ("nbs", "sentiment_nbdev", "pyproject.toml", "README.md"):
        (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, tmp_path/name)
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    for command in ("nbdev-export", "nbdev-clean"):
        subprocess.run([Path(sys.executable).with_name(command)], cwd=tmp_path, env=environment, check=True, capture_output=True)
    for path in [*LIBRARY.glob("*.py"), *NOTEBOOKS]:
        assert (tmp_path/path.relative_to(ROOT)).read_text() == path.read_text(), f"{path.name}: run nbdev-export and nbdev-clean"


def test_readme_is_generated():
    run = subprocess.run([sys.executable, ROOT/"tools/make_readme.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_file_says_what_the_profiles_say(profile):
    assert load_settings(profile, ROOT/"settings.ini") == profile_settings(profile)


def test_nothing_speaks_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode: pytest.skip("not a git checkout")
    here = re.compile("|".join(map(re.escape, (str(ROOT.parent) + "/", str(Path.home()) + "/"))))
    files = [ROOT/name for name in listed.stdout.split("\n") if name and (ROOT/name).is_file() and not name.endswith((".png", ".parquet"))]
    assert not [path.name for path in files if here.search(path.read_text(errors="replace"))]
