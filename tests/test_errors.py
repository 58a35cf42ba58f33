"""Where a model fails: right counts by hand, the right row with the right tag, and a file of mistakes that replaces nothing."""
import csv, json
from dataclasses import replace

import numpy as np, pandas as pd, pytest
from datasets import ClassLabel, Dataset, Features, Value
from sentiment_nbdev.corpus import corpus_rows
from sentiment_nbdev.errors import (ErrorAnalysis, accuracy_by_group, accuracy_by_length, analyse_errors, class_scores, confident_mistakes,
                                    confusion_table, error_report, group_names, plot_groups, write_mistakes)
from sentiment_nbdev.files import InputError
from sentiment_nbdev.metrics import wilson_interval
from sentiment_nbdev.prediction import Classifier, score_classifier
from sentiment_nbdev.readers import read_rows

LABELS = ("bad", "mixed", "good")
ROWS = pd.DataFrame(dict(row=[3, 1, 4, 15, 9, 2], text=["a, b", 'he said "no"', "two\nlines", "d", "e", "ü"],
                         label=["bad", "bad", "bad", "good", "good", "good"], predicted=["bad", "good", "good", "good", "mixed", "good"],
                         probability=[0.9, 0.7, 0.95, 0.7, 0.7, 0.8], tokens=[3, 5, 5, 9, 40, 50]))
ROWS["right"] = ROWS["label"] == ROWS["predicted"]
ANALYSIS = ErrorAnalysis(LABELS, 32, dict(n=6), ROWS, dict(genre=[["war"], ["war", "sea"], ["sea"], ["sea"], ["sea"], ["sea"]]))


def refused(result, *parts):
    "One line on stderr that says these words, exit code 2, nothing on stdout"
    code, out, err = result
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1) and err.startswith("error: "), (code, out, err)
    for part in parts: assert part in err, err


def test_confusion_by_hand():
    assert confusion_table(ROWS, LABELS).to_numpy().tolist() == [[1, 0, 2], [0, 0, 0], [0, 1, 2]]
    assert confusion_table(ROWS, LABELS[::-1]).to_numpy().tolist() == [[2, 1, 0], [0, 0, 0], [2, 0, 1]]     # the order is the labels'
    two = ROWS[ROWS["predicted"] != "mixed"]
    assert confusion_table(two, ("good", "bad")).loc["bad"].to_dict() == dict(good=2, bad=1)


def test_class_scores_by_hand():
    found = class_scores(ROWS, LABELS)
    assert found["n"].to_dict() == dict(bad=3, mixed=0, good=3)
    assert found.loc["bad"].tolist()[1:] == pytest.approx([1, 1/3, 1/2])
    assert found.loc["good"].tolist()[1:] == pytest.approx([2/4, 2/3, 4/7])
    assert found.loc["mixed", "precision"] == 0 and np.isnan(found.loc["mixed", "recall"])


def test_a_class_that_is_nowhere_has_no_scores():
    found = class_scores(ROWS, (*LABELS, "odd"))
    assert found.loc["odd", "n"] == 0 and found.loc["odd"].isna().sum() == 3
    assert "nan" not in error_report(replace(ANALYSIS, labels=(*LABELS, "odd"))).lower()


def test_groups_by_hand():
    found = accuracy_by_group(ROWS["right"], ANALYSIS.groups["genre"])
    assert found["n"].to_dict() == dict(sea=5, war=2)                          # a row may be in both
    assert found["accuracy"].to_dict() == dict(sea=2/5, war=1/2)
    assert tuple(found.loc["sea", ["low", "high"]]) == pytest.approx(wilson_interval(2, 5))
    wide = accuracy_by_group(ROWS["right"], ANALYSIS.groups["genre"], level=0.99)
    assert (wide["low"] < found["low"]).all() and (wide["high"] > found["high"]).all()
    assert accuracy_by_group([True, False], [[], []]).empty


def test_lengths_by_hand():
    found = accuracy_by_length(ROWS["right"], ROWS["tokens"], limit=39, bins=2)
    assert found.index.tolist() == ["3 to 5", "9 to 50"]
    assert found["n"].tolist() == [3, 3] and found["cut"].tolist() == [0, 2] and found["accuracy"].tolist() == pytest.approx([1/3, 2/3])
    assert sum(accuracy_by_length(ROWS["right"], ROWS["tokens"], 39, bins=50)["n"]) == 6


@pytest.mark.parametrize("lengths", [[7] * 9, [1] * 8 + [90], [1] + [90] * 8, range(100)])
def test_every_row_has_one_length(lengths):
    found = accuracy_by_length([True] * len(lengths), list(lengths), limit=10)
    assert found["n"].sum() == len(lengths) and found["n"].min() > 0 and found["cut"].sum() == sum(length > 10 for length in lengths)


def test_groups_of_a_column():
    features = Features(kind=ClassLabel(names=["war", "sea"]), year=Value("int64"), note=Value("string"), tags=[Value("string")])
    rows = Dataset.from_dict(dict(kind=[1, 0, None], year=[1999, None, 2001], note=["a\n b", "", "a b"], tags=[["x", "y", "x"], [], None]), features=features)
    assert group_names(rows, "kind") == [["sea"], ["war"], ["(none)"]]
    assert group_names(rows, "year") == [["1999"], ["(none)"], ["2001"]]
    assert group_names(rows, "note") == [["a b"], ["(none)"], ["a b"]]
    assert group_names(rows, "tags") == [["x", "y"], ["(none)"], ["(none)"]]   # counted once
    with pytest.raises(InputError, match="no column 'genre': name one of kind, year, note, tags with --by"): group_names(rows, "genre")
    with pytest.raises(InputError, match="51 different values"): group_names(Dataset.from_dict(dict(n=range(51))), "n")


def test_mistakes_are_in_order():
    "Most confident first, then as in the data"
    assert confident_mistakes(ROWS)["row"].tolist() == [4, 1, 9]
    shown = error_report(ANALYSIS, show=2)
    assert shown.index("row 4: bad taken for good at 0.950\ntwo lines") < shown.index('row 1: bad taken for good at 0.700\nhe said "no"')
    assert "row 9" not in shown and "two lines" not in error_report(ANALYSIS)


def test_the_lowest_group_comes_first():
    lines = error_report(ANALYSIS).split("accuracy by genre (2 groups")[1].splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["sea", "war"] and lines[2].split()[1:3] == ["5", "0.400"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_written_file_comes_back(ending, tmp_path):
    assert write_mistakes(ANALYSIS, tmp_path/f"new/m.{ending}") == 3
    back = read_rows(tmp_path/f"new/m.{ending}").to_dict()
    wanted = confident_mistakes(ROWS).to_dict("list")
    assert {name: list(map(str, values)) for name, values in back.items()} == {name: list(map(str, values)) for name, values in wanted.items()}
    before = (tmp_path/f"new/m.{ending}").read_bytes()
    with pytest.raises(InputError, match="exists: move it, or name another file with --errors"): write_mistakes(ANALYSIS, tmp_path/f"new/m.{ending}")
    assert (tmp_path/f"new/m.{ending}").read_bytes() == before


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_no_mistakes_are_a_file_without_rows(ending, tmp_path):
    assert write_mistakes(replace(ANALYSIS, rows=ROWS[ROWS["right"]]), tmp_path/f"m.{ending}") == 0
    if ending == "csv": assert (tmp_path/"m.csv").read_text() == "row,text,label,predicted,probability\n"
    if ending == "parquet": assert pd.read_parquet(tmp_path/"m.parquet").columns.tolist() == ["row", "text", "label", "predicted", "probability"]


def test_picture_shows_each_group_once():
    drawn = plot_groups(accuracy_by_group([True, True, False], ["all right", "all right", "wrong"]), 2/3)
    assert [tick.get_text() for tick in drawn.get_yticklabels()] == ["all right (n = 2)", "wrong (n = 1)"]


@pytest.fixture(scope="module")
def whole(saved): return replace(Classifier.load(saved/"whole"), seen=frozenset())


def test_rows_keep_their_tags(whole, settings):
    analysis, source = analyse_errors(whole, settings), corpus_rows("test")
    assert analysis.scores == score_classifier(whole, settings)
    for row, tags in zip(analysis.rows.itertuples(), analysis.groups["tags"], strict=True):
        assert (row.text, analysis.labels.index(row.label), tags) == tuple(source[row.row].values())


def test_rows_that_the_model_has_seen_take_their_tags_with_them(whole, settings):
    from sentiment_nbdev.files import text_fingerprints
    every, source = analyse_errors(whole, settings), corpus_rows("test")
    known = replace(whole, seen=frozenset(text_fingerprints(every.rows["text"][::2])))
    with pytest.warns(UserWarning, match="8 of 16 test texts"): rest = analyse_errors(known, settings)
    assert rest.rows["row"].tolist() == every.rows["row"].tolist()[1::2]
    assert rest.groups["tags"] == [source[number]["tags"] for number in rest.rows["row"]]


def test_other_labels_are_refused(whole, settings):
    with pytest.raises(InputError, match="the model knows NEG, POS"): analyse_errors(whole, replace(settings, labels=("POS", "NEG")))


@pytest.fixture
def films(tmp_path):
    "60 rows with a genre, of which the last is empty"
    lines = [dict(id=n, text=f"film number {n} was seen", label=("NEG", "POS")[n % 2], genre=("war", "sea", "")[(n % 5 > 2) + (n == 59)]) for n in range(60)]
    with open(tmp_path/"films.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    (tmp_path/"films.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


@pytest.mark.parametrize("data", ["films.csv", "films.jsonl"])
def test_command(command, saved, films, tmp_path, data):
    own = ["evaluate", saved/"whole", "--data", data, "--n-test", 40]
    plain = command(*own)
    code, out, err = command(*own, "--by", "genre", "--errors", "m.csv")
    assert code == 0 and out.startswith(plain[1] + "\nconfusion matrix"), err
    mistakes = read_rows(tmp_path/"m.csv")
    assert f"Wrote {len(mistakes)} mistakes to m.csv" in err and len(mistakes) > 0
    for row in mistakes: assert films[int(row["row"])]["text"] == row["text"] and films[int(row["row"])]["label"] == row["label"] != row["predicted"]
    groups = {line.split()[0]: int(line.split()[1]) for line in out.split("accuracy by genre")[1].splitlines()[2:]}
    assert sum(groups.values()) == 40 and groups.keys() <= {"war", "sea", "(none)"} and "film number" not in out
    code, out, err = command(*own, "--show", 2)
    assert code == 0 and out.count("film number") == 2 and "accuracy by genre" not in out and len(list(tmp_path.glob("m.*"))) == 1


def test_command_takes_the_tags_of_the_corpus(command, saved):
    code, out, err = command("evaluate", saved/"adapter", "--errors", "m.parquet")
    assert code == 0 and "accuracy by tags" in out and "verdict_last" in out, err


@pytest.mark.parametrize("flags, words", [(["--errors", "m.txt"], "must end in .csv, .tsv, .jsonl, .parquet"), (["--errors", "m.docx"], "must end in"),
                                          (["--errors", "films.csv"], "films.csv exists: move it"), (["--errors", "folder.csv"], "is a folder")])
def test_the_file_is_checked_before_the_work(command, films, tmp_path, flags, words):
    (tmp_path/"folder.csv").mkdir()
    before = (tmp_path/"films.csv").read_bytes()
    refused(command("evaluate", "nowhere", *flags), words)                     # there is no model: nothing was tried
    assert (tmp_path/"films.csv").read_bytes() == before


@pytest.mark.parametrize("flags, words", [(["--by", "year"], "no column 'year': name one of id, text, label, genre with --by"), (["--show", "-1"], "--show"),
                                          (["--by", "genre", "--n-test", "90"], "has 60 rows, but 90 for test"),
                                          (["--by", "id", "--n-test", "60"], "column 'id' has 60 different values")])
def test_wrong_flags_are_one_line(command, saved, films, tmp_path, flags, words, monkeypatch):
    def never(*_): raise AssertionError("predicted before the input was checked")
    monkeypatch.setattr(Classifier, "logits", never)
    code, out, err = command("evaluate", saved/"whole", "--data", "films.csv", "--n-test", 20, *flags, "--errors", "m.csv")
    refused((code, out, "".join(line for line in err.splitlines(True) if "cannot be checked" not in line)), words)
    assert not (tmp_path/"m.csv").exists()
