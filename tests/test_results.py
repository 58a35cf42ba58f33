"""Committed results are what their records say, and the records are complete."""
from pathlib import Path

import pytest
from sentiment_nbdev.comparison import read_records, write_results

RESULTS = Path(__file__).resolve().parent.parent/"results"
FOLDERS = sorted(path.parent for path in RESULTS.rglob("results.json"))


def test_there_are_results(): assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_results_follow_from_their_records(folder, tmp_path):
    write_results(read_records(folder), tmp_path)
    for name in ("results.json", "report.md", "table.csv"):
        assert (tmp_path/name).read_text() == (folder/name).read_text(), name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_records_are_complete(folder):
    records = read_records(folder)
    assert len({record.rows["test"]["sha256"] for record in records}) == 1
    for record in records:
        assert len(record.correct) == record.test["n"] == record.rows["test"]["n"]
        assert record.correct.count("1") / len(record.correct) == pytest.approx(record.test["accuracy"], abs=1e-5)
        assert record.environment["versions"]["transformers"] and record.cost["seconds"] > 0
        assert "/" not in record.settings["data"] or record.settings["data"].count("/") == 1
