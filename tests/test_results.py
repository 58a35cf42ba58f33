"""Committed results are what their records say, and the records are complete."""
import json, re, shutil
from pathlib import Path

import matplotlib, pytest
from sentiment_nbdev.reports import index_numbers, read_results, write_report
from sentiment_nbdev.study import test_runs as final_runs, read_study, relevant_settings, trial_runs
from sentiment_nbdev.records import read_record

RESULTS = Path(__file__).resolve().parent.parent/"results"
STUDIES = sorted(path.parent for path in RESULTS.rglob("study.json"))
FOLDERS = sorted({path.parent for path in RESULTS.rglob("records")} - set(STUDIES))     # comparisons older than plans


def other_versions():
    "Whether pictures may differ, because matplotlib is not the one of the constraints"
    return f"matplotlib=={matplotlib.__version__}" not in (RESULTS.parent/"constraints.txt").read_text().split()


def test_there_are_results(): assert FOLDERS and STUDIES


@pytest.mark.parametrize("folder", STUDIES + FOLDERS, ids=lambda path: path.name)
def test_reports_follow_from_their_records(folder, tmp_path):
    assert {"report.md", "summary.json", "table.csv"} <= {path.name for path in folder.iterdir()}
    shutil.copytree(folder, tmp_path/folder.name)
    write_report(tmp_path/folder.name)
    for path in (path for path in folder.iterdir() if path.is_file()):
        assert path.suffix == ".png" and other_versions() or path.read_bytes() == (tmp_path/folder.name/path.name).read_bytes(), path.name


# a plan says query and value; a record says what these layers are called in its encoder
OWN_TARGETS = {"sentence-transformers/all-mpnet-base-v2": ("q", "v")}


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_study_records_are_those_of_the_plan(study):
    plan = read_study(study)
    known = {f"{run.name}.json" for run in trial_runs(plan, study) + final_runs(plan, study)}
    files = sorted((study/"records").glob("*.json"))
    assert files and {path.name for path in files} <= known
    runs = {f"{run.name}.json": run for run in trial_runs(plan, study) + final_runs(plan, study)}
    for path in files:
        record, run = read_record(path), runs[path.name]
        assert (record.method, record.settings["seed"], record.lr) == (run.method, run.settings.seed, getattr(run.settings, f"lr_{run.method}", None))
        asked = relevant_settings(run.method, run.settings)
        said = {name: tuple(value) if isinstance(value, list) else value for name, value in record.settings.items() if name in asked}
        if run.method == "lora" and asked["model"] in OWN_TARGETS: asked["lora_targets"] = OWN_TARGETS[asked["model"]]
        assert asked == said
        assert bool(record.test) == run.test or record.status != "done"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_records_are_complete(folder):
    records = read_results(folder).finals
    assert len({record.rows["test"]["sha256"] for record in records}) == 1
    for record in records:
        assert len(record.correct) == record.test["n"] == record.rows["test"]["n"]
        assert record.correct.count("1") / len(record.correct) == pytest.approx(record.test["accuracy"], abs=1e-5)
        assert record.environment["versions"]["transformers"] and record.cost.seconds > 0
        assert "/" not in record.settings["data"] or record.settings["data"].count("/") == 1


NUMBER = re.compile(r"(\d[\d.,]*)(?:<!--(r:([\w.-]+)|given)-->)?(\s?%(?! interval))?")
PROSE = sorted((RESULTS.parent/"nbs").rglob("[!.]*.ipynb"))   # README.md is made from one of them


def prose(path):
    "The paragraphs of a file, without code and tables"
    text = "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown")
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    return [part for part in re.split(r"\n\s*\n", text) if not part.lstrip().startswith("|")]


def printed_as(value, shown):
    "A share may be shown in percent; the digits shown decide how exact it must be"
    digits = len(shown.partition(".")[2])
    return shown.replace(",", "") in (f"{value:.{digits}f}", f"{100 * value:.{digits}f}")


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_numbers_in_prose_have_a_record(path):
    "A percentage is marked with its record (r:key), or as set by the text itself (given), or its paragraph names a source"
    index = index_numbers(RESULTS)
    for part in prose(path):
        for shown, mark, key, percent in NUMBER.findall(part):
            if key: assert key in index and printed_as(index[key], shown.rstrip(".,")), f"{shown} is not {key} = {index.get(key)}"
            elif percent: assert mark or "](http" in part, f"{path.name}: {shown} % has no record and no source: {part[:100]!r}"


def test_the_check_of_numbers_can_fail():
    assert printed_as(0.8712, "87.1") and printed_as(1e-3, "0.001") and printed_as(2.25, "2.2")
    assert not printed_as(0.8712, "87.2") and not printed_as(0.8712, "8.7")


def test_index_is_current():
    assert json.loads((RESULTS/"index.json").read_text()) == index_numbers(RESULTS)
