"""Rows with a suspicious label: the list, its file, the command and its one-line errors. Without cleanlab (extra `suspects`) most are skipped."""
import json, sys

import numpy as np
import pandas as pd
import pytest
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.suspects import find_suspects, mean_vectors, out_of_fold

GOOD, BAD = [f"I loved {what}" for what in ("it", "this", "the film", "the cast", "the end", "her")], [f"I hated {what}" for what in ("it", "this", "the film", "the cast", "the end", "her")]


@pytest.fixture(scope="module")
def cleanlab(): return pytest.importorskip("cleanlab")


@pytest.fixture
def slip(tmp_path):
    "A file of twelve plain rows and one slip, the last"
    rows = [(text, "POS") for text in GOOD] + [(text, "NEG") for text in BAD] + [("I loved it all", "NEG")]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path/"slip.csv", index=False)
    return "slip.csv"


def refused(result, *parts):
    code, out, err = result
    assert (code, out) == (2, "") and err.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in err, (code, out, err)
    for part in parts: assert part in err, err


def test_a_slip_is_found_listed_and_written(cleanlab, command, slip, tmp_path):
    code, out, err = command("suspects", "--data", slip, "--output", "found.csv")
    table = pd.read_csv(tmp_path/"found.csv")
    assert code == 0 and table.loc[0, ["part", "row", "text", "label", "suggested"]].tolist() == ["slip.csv", 12, "I loved it all", "NEG", "POS"]
    assert table["probability"].is_monotonic_increasing and (table["label"] != table["suggested"]).all()
    assert "slip.csv" in out and "loved" not in out + err and "agrees with" in err and f"Wrote {len(table)} rows to found.csv" in err


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_every_kind_of_table_is_written(ending, cleanlab, command, slip, tmp_path):
    assert command("suspects", "--data", slip, "--output", f"found.{ending}")[0] == 0
    read = dict(tsv=lambda path: pd.read_csv(path, sep="\t"), jsonl=lambda path: pd.read_json(path, lines=True), parquet=pd.read_parquet)[ending]
    assert read(tmp_path/f"found.{ending}")["row"][0] == 12


def test_an_existing_file_stays_as_it_is(command, slip, tmp_path):
    (tmp_path/"mine.csv").write_text("my notes")
    refused(command("suspects", "--data", slip, "--output", "mine.csv"), "mine.csv exists", "--output")
    assert (tmp_path/"mine.csv").read_text() == "my notes"


@pytest.mark.parametrize("output, words", [("found.txt", "must end in .csv"), ("found", "must end in"), (".", "must end in"), ("slip.csv/found.csv", "no folder you may write to")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(output, words, command, slip):
    refused(command("suspects", "--data", slip, "--output", output), words)


@pytest.mark.parametrize("text, words", [("text,label\na joy,POS\nfine,POS\n", "one label"), ("text,label\n" + "a joy,POS\n" * 9 + "a bore,NEG\n", "one class has 1 rows"), ("text,label\na joy,\n", "label"),
                                         ("remark,label\na joy,POS\n", "no column 'text'")], ids=["one-label", "rare", "no-label", "column"])
def test_data_that_cannot_be_judged_is_one_line(text, words, command, tmp_path):
    (tmp_path/"bad.csv").write_text(text)
    refused(command("suspects", "--data", "bad.csv", "--output", "found.csv"), words)
    assert not (tmp_path/"found.csv").exists()


def test_no_file_is_one_line(command): refused(command("suspects", "--data", "nowhere.csv"), "no file or folder nowhere.csv")


def test_all_parts_of_a_folder_are_read_with_their_own_row_numbers(cleanlab, command, slip, tmp_path):
    (tmp_path/"parts").mkdir()
    for part in ("train", "test"): (tmp_path/"parts"/f"{part}.csv").write_text((tmp_path/slip).read_text())
    assert command("suspects", "--data", "parts", "--output", "found.jsonl")[0] == 0
    found = [json.loads(line) for line in (tmp_path/"found.jsonl").read_text().splitlines()]
    assert {(row["part"], row["row"]) for row in found} <= {(part, row) for part in ("train", "test") for row in range(13)}


def test_a_class_without_rows_does_no_harm(cleanlab, command, slip, tmp_path):
    assert command("suspects", "--data", slip, "--set", "labels=NEG,neutral,POS", "--output", "found.csv")[0] == 0
    assert set(pd.read_csv(tmp_path/"found.csv")["suggested"]) <= {"NEG", "POS"}


def test_clean_labels_and_sure_judges_give_no_suspects(cleanlab):
    labels = np.array([0, 1] * 10)
    assert len(find_suspects(labels, np.where(labels[:, None] == [0, 1], 0.95, 0.05))) == 0


def test_no_row_is_judged_by_a_model_that_learned_it():
    "Labels that are pure chance cannot be guessed by a stranger, whatever the vectors"
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(300, 200)), rng.integers(0, 2, 300)
    assert abs((out_of_fold(vectors, labels).argmax(axis=1) == labels).mean() - 0.5) < 0.12


def test_a_text_has_the_same_vector_alone():
    settings = Settings(device="cpu", precision="fp32")
    assert np.allclose(mean_vectors([GOOD[0], BAD[2] * 5], settings)[0], mean_vectors(GOOD[:1], settings)[0], atol=1e-5)


def test_without_cleanlab_one_line_names_the_extra(command, slip, monkeypatch):
    for name in ("cleanlab", "cleanlab.filter"): monkeypatch.setitem(sys.modules, name, None)
    refused(command("suspects", "--data", slip), "finding label errors needs cleanlab: `pip install sentiment-nbdev[suspects]`")
