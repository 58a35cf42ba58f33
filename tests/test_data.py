"""Wrong inputs, the real IMDB sample and the hub: what does not fit the lesson nbs/02_data.ipynb."""
import json, os, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sentiment_nbdev.sources import check_hub, looks_like_path, read_folder, read_rows, read_source
from sentiment_nbdev.data import load_reviews, plan_rows
from sentiment_nbdev.labels import label_lookup
from sentiment_nbdev.files import InputError
from sentiment_nbdev.settings import Settings
from stand_in_hub import COMMIT, serve

REPO = Path(__file__).parents[1]
IMDB = Path(os.environ.get("SENTIMENT_IMDB", REPO.parent/"shared"/"imdb"))
SMALL = Settings(n_train=6, n_validation=2, n_test=4)
DEAD = "http://127.0.0.1:9"


def one_line(call, *args):
    "The message of the `InputError` that a call raises"
    with pytest.raises(InputError) as caught: call(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def rows(n=12, label=lambda i: i % 2, text=lambda i: f"film number {i}"):
    return Dataset.from_list([dict(text=text(i), label=label(i)) for i in range(n)])


def in_process(code, home, **env):
    "Runs code in a fresh process with a cache of its own: (last line of stdout, stderr, seconds)"
    env = {**os.environ, "HF_HOME": str(home), "PYTHONPATH": str(REPO), **env}
    if "HF_HUB_OFFLINE" not in env: env["HF_HUB_OFFLINE"] = "0"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=home, timeout=120)
    return done.stdout.strip().splitlines()[-1], done.stderr, time.monotonic() - start


# ---- files

@pytest.mark.parametrize("name, content, part", [
    ("a.csv", b"", "it is empty"),
    ("a.csv", b"text,label\n", "it has no rows"),
    ("a.csv", b"\n\n", "it has no rows"),
    ("a.csv", b"text,label\nx,1,extra\ny,0,extra\n", "quote texts that hold a comma"),
    ("a.csv", b"text,label\nx,1\ny,0,extra\n", "line 3"),
    ("a.csv", b'text,label\n"x,1\n', "opens a quote that is never closed"),
    ("a.csv", "text,label\ncaf\xe9,1\n".encode("utf-8") + "caf\xe9,1\n".encode("latin-1"), "utf-8"),
    ("a.jsonl", '{"text": "caf\xe9"}\n'.encode("latin-1"), "utf-8"),
    ("a.jsonl", b'{"text": "x"\n', "cannot read"),
    ("a.jsonl", b"\n\n", "it has no rows"),
    ("a.txt", b"", "it is empty"),
    ("a.txt", "caf\xe9\n".encode("utf-8") + "caf\xe9\n".encode("latin-1"), "utf-8"),
    ("a.parquet", b"no", "cannot read"),
    ("a.xlsx", b"no", "must end in"),
])
def test_broken_file(tmp_path, capfd, name, content, part):
    (tmp_path/name).write_bytes(content)
    message = one_line(read_rows, tmp_path/name)
    assert part in message and name in message
    assert "rror" not in capfd.readouterr().err


def test_missing_file(tmp_path):
    assert "no file" in one_line(read_rows, tmp_path/"nowhere.csv")
    assert "no file" in one_line(read_rows, tmp_path)


def test_csv_text_stays_as_written(tmp_path):
    cells = ["NA", "01", "1.50", "null", "True", " spaced ", 'say "hi"', "two\nlines"]
    Dataset.from_dict(dict(text=cells, label=["1"]*len(cells))).to_csv(tmp_path/"a.csv")
    assert read_rows(tmp_path/"a.csv")["text"][:] == cells


def test_txt_is_a_text_per_line(tmp_path):
    (tmp_path/"a.txt").write_bytes("one\n\nthree, x\r\nfour\u2028still four\nlast".encode())
    assert read_rows(tmp_path/"a.txt")["text"][:] == ["one", "", "three, x", "four\u2028still four", "last"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_and_order_are_kept(tmp_path, ending):
    table = Dataset.from_dict(dict(z=["b", "a"], text=["x", "y"], a=["1", "2"]))
    getattr(table, "to_" + ending.replace("jsonl", "json"))(tmp_path/f"t.{ending}")
    back = read_rows(tmp_path/f"t.{ending}")
    assert back.column_names == ["z", "text", "a"] and back["z"][:] == ["b", "a"]


def test_a_replaced_file_with_the_old_date_is_read_anew(tmp_path):
    for text in ("old", "new"):
        (tmp_path/"a.txt").write_text(text)
        os.utime(tmp_path/"a.txt", (1, 1))
        assert read_rows(tmp_path/"a.txt")["text"][:] == [text]


def test_byte_order_mark(tmp_path):
    (tmp_path/"a.csv").write_bytes("\ufefftext,label\nx,1\n".encode())
    assert read_rows(tmp_path/"a.csv").column_names == ["text", "label"]


# ---- folders

@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_folder(tmp_path, ending):
    for split in ("train", "test", "validation"):
        table = rows(text=lambda i: f"{split} film {i}")
        getattr(table, "to_" + ending.replace("jsonl", "json"))(tmp_path/f"{split}-00000-of-00001.{ending}")
    (tmp_path/"README.md").write_text("# Not rows\n")
    reviews = load_reviews(replace(SMALL, data=str(tmp_path)))
    assert reviews.num_rows == dict(train=6, validation=2, test=4)
    assert all(text.startswith(name) for name, split in reviews.items() for text in split["text"])


def test_folder_without_rows_or_of_two_kinds(tmp_path):
    assert "no csv, tsv, jsonl or parquet" in one_line(read_folder, tmp_path)
    rows().to_csv(tmp_path/"train.csv"), rows().to_json(tmp_path/"test.jsonl")
    assert ".csv and .jsonl" in one_line(read_folder, tmp_path)


def test_folder_without_test_split(tmp_path):
    rows().to_csv(tmp_path/"train.csv"), rows().to_csv(tmp_path/"validation.csv")
    assert "has no test split (it has: " in one_line(load_reviews, replace(SMALL, data=str(tmp_path)))


# ---- which rows

@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_pile_is_divided_into_disjoint_splits(tmp_path, ending):
    getattr(rows(), "to_" + ending.replace("jsonl", "json"))(tmp_path/f"pile.{ending}")
    reviews = load_reviews(replace(SMALL, data=str(tmp_path/f"pile.{ending}")))
    assert reviews.num_rows == dict(train=6, validation=2, test=4)
    assert len({text for split in reviews.values() for text in split["text"]}) == 12
    for split in reviews.values():
        assert split.features == Features(text=Value("string"), label=ClassLabel(names=["NEG", "POS"]))
        assert [int(text.split()[-1]) % 2 for text in split["text"]] == split["label"][:]


def test_the_sample_is_shuffle_and_select():
    source = dict(train=rows(500), test=rows(300))
    settings = Settings(n_train=100, n_validation=50, n_test=80)
    plan = plan_rows(source, settings)
    shuffled = source["train"].shuffle(seed=42)
    assert source["train"].select(plan["train"][1])["text"][:] == shuffled.select(range(100))["text"][:]
    assert source["train"].select(plan["validation"][1])["text"][:] == shuffled.select(range(100, 150))["text"][:]
    assert source["test"].select(plan["test"][1])["text"][:] == source["test"].shuffle(seed=42).select(range(80))["text"][:]


@pytest.mark.parametrize("changes, part", [
    (dict(n_train=8), "train has 10 rows, but 8 for train + 5 for validation are asked: lower --n-train or --n-validation"),
    (dict(n_test=9), "test has 4 rows, but 9 for test are asked: lower --n-test"),
])
def test_too_few_rows(changes, part):
    settings = replace(Settings(n_train=5, n_validation=5, n_test=4), **changes)
    assert part in one_line(plan_rows, dict(train=rows(10), test=rows(4)), settings)


def test_empty_split():
    assert "test has no rows" in one_line(plan_rows, dict(train=rows(10), test=rows(4).select([])), SMALL)


# ---- row checks, through a file

def from_file(tmp_path, table, **changes):
    table.to_parquet(tmp_path/"pile.parquet")
    return load_reviews(replace(SMALL, data=str(tmp_path/"pile.parquet"), **changes))


@pytest.mark.parametrize("table, part", [
    (rows(text=lambda i: " \n" if i == 7 else f"x{i}"), "row 7 of pile.parquet: the text is empty"),
    (rows(text=lambda i: None if i == 7 else f"x{i}"), "row 7 of pile.parquet: the text is None, not a string"),
    (rows(text=lambda i: i), "not a string"),
    (rows(label=lambda i: "maybe" if i == 7 else "POS"), "row 7 of pile.parquet: label 'maybe' is not one of NEG, POS"),
    (rows(label=lambda i: 2 if i == 7 else 0), "row 7 of pile.parquet: label 2 is not one of NEG, POS"),
    (rows(label=lambda i: -1), "label -1 is not one of NEG, POS"),
    (rows(label=lambda i: None if i == 7 else 1), "row 7 of pile.parquet: label None"),
    (rows(label=lambda i: 0.5), "label 0.5 is not one of NEG, POS"),
    (rows().rename_column("text", "review"), "no column 'text': set text_column to one of review, label"),
    (rows().rename_column("label", "stars"), "no column 'label': set label_column to one of text, stars"),
])
def test_bad_row(tmp_path, table, part): assert part in one_line(from_file, tmp_path, table)


@pytest.mark.parametrize("spelling", [("neg", "pos"), (" Neg", "POS "), ("0", "1"), (0, 1), (0.0, 1.0)])
def test_spellings_of_labels(tmp_path, spelling):
    reviews = from_file(tmp_path, rows(label=lambda i: spelling[i % 2]))
    assert [int(text.split()[-1]) % 2 for text in reviews["train"]["text"]] == reviews["train"]["label"][:]


def with_classes(names): return rows().cast_column("label", ClassLabel(names=names))


def test_classes_go_by_name_and_else_by_number(tmp_path):
    turned = from_file(tmp_path, with_classes(["Pos", "neg"]))["train"]
    assert [1 - int(text.split()[-1]) % 2 for text in turned["text"]] == turned["label"][:]
    with pytest.warns(UserWarning, match="bad, good are read by number as NEG, POS"):
        numbered = from_file(tmp_path, with_classes(["bad", "good"]))["train"]
    assert [int(text.split()[-1]) % 2 for text in numbered["text"]] == numbered["label"][:]


def test_classes_that_do_not_fit(tmp_path):
    assert "label 'maybe' is not one of NEG, POS" in one_line(from_file, tmp_path, with_classes(["maybe", "pos"]))
    assert "is not one of NEG, POS" in one_line(from_file, tmp_path, with_classes(["a", "b", "c"]))


def test_two_names_that_differ_by_case(tmp_path):
    with pytest.raises(InputError, match="differ only by case"): from_file(tmp_path, rows(), labels=("pos", "POS"))


def test_duplicates_are_counted(tmp_path):
    with pytest.warns(UserWarning, match="^4 of 4 test texts are also in train or validation"):
        from_file(tmp_path, rows(text=lambda i: "the same film"))


def test_the_corpus_goes_by_name():
    usual, turned = (load_reviews(replace(SMALL, labels=labels))["train"]["label"][:] for labels in (("NEG", "POS"), ("POS", "NEG")))
    assert usual == [1 - number for number in turned]


# ---- names

@pytest.mark.parametrize("name", ["./x", "../x", "~/x", "/x/y", "a\\b", "a/b/c", "reviews.csv", "owner/file.parquet"])
def test_paths(name, tmp_path, monkeypatch):
    (tmp_path/"inner").mkdir()
    monkeypatch.chdir(tmp_path/"inner")                  # where none of them is there
    assert looks_like_path(name)
    assert "no file or folder" in one_line(read_source, replace(SMALL, data=name + ".gone" * name.startswith("/")))


# ---- the real IMDB

@pytest.mark.skipif(not IMDB.is_dir(), reason="no IMDB: set SENTIMENT_IMDB to a folder with its parquet files")
def test_imdb_sample():
    reviews = load_reviews(Settings(data=str(IMDB), n_validation=500))
    assert reviews.num_rows == dict(train=1000, validation=500, test=1000)
    assert [sum(reviews[split]["label"]) for split in ("train", "test")] == [488, 488]


# ---- the hub

ASK = """
import sys
from sentiment_nbdev.files import InputError
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.data import load_reviews
try: print(load_reviews(Settings(data="some/reviews", data_revision=sys.argv[1] if len(sys.argv) > 1 else "", n_train=6, n_validation=2, n_test=4)).num_rows)
except InputError as e: print("InputError:", e)
"""


@pytest.mark.parametrize("env", [dict(HF_ENDPOINT=DEAD), dict(HF_HUB_OFFLINE="1")])
def test_no_network_is_answered_soon(tmp_path, env):
    out, err, seconds = in_process(ASK, tmp_path, **env)
    assert out.startswith("InputError: the hub does not give us the dataset 'some/reviews'")
    assert "--data corpus" in out and "Traceback" not in err and seconds < 30


def test_a_silent_hub_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("sentiment_nbdev.sources.HfApi", lambda: type("Silent", (), dict(repo_info=lambda *_, **__: time.sleep(60)))())
    start = time.monotonic()
    with pytest.raises(InputError, match="no answer within 0.2 s"): check_hub("some/reviews", "dataset", seconds=0.2)
    assert time.monotonic() - start < 2


def test_hub_then_the_copy_of_that_commit(tmp_path):
    folder = tmp_path/"datasets"/"some"/"reviews"
    folder.mkdir(parents=True)
    for split in ("train", "test"): rows().to_parquet(folder/f"{split}-00000-of-00001.parquet")
    pinned = ASK.replace('sys.argv[1] if len(sys.argv) > 1 else ""', repr(COMMIT))
    with serve(tmp_path) as address:
        assert "not found or not public" in in_process(ASK.replace("some/reviews", "no/such"), tmp_path, HF_ENDPOINT=address)[0]
        assert "not found or not public, or not at revision" in in_process(pinned.replace(COMMIT, "b"*40), tmp_path, HF_ENDPOINT=address)[0]
        first = in_process(pinned, tmp_path, HF_ENDPOINT=address)[0]
    assert json.loads(first.replace("'", '"')) == dict(train=6, validation=2, test=4)
    again, err, seconds = in_process(pinned, tmp_path, HF_ENDPOINT=DEAD)
    assert again == first and seconds < 15 and "Retrying" not in err


# ---- every way to write a label

TRUE, FALSE = True, False
ROWS = [   # labels of the settings, the two labels in the file, the class of the first and of the second (None: refused)
    (("NEG", "POS"), ("neg", "pos"), (0, 1)),
    (("NEG", "POS"), ("Negative", "POSITIVE "), (0, 1)),
    (("negative", "positive"), ("neg", "Pos"), (0, 1)),
    (("POS", "NEG"), ("negative", "positive"), (1, 0)),
    (("NEG", "POS"), (0, 1), (0, 1)),
    (("POS", "NEG"), (0, 1), (0, 1)),                        # the order of `labels` is the order of the numbers: with a warning
    (("NEG", "POS"), (0.0, 1.0), (0, 1)),
    (("NEG", "POS"), ("0.0", "1.0"), (0, 1)),
    (("NEG", "POS"), (1, 2), (0, 1)),
    (("NEG", "POS"), (1.0, 2.0), (0, 1)),
    (("NEG", "POS"), ("1", "2"), (0, 1)),
    (("NEG", "POS"), (-1, 1), (0, 1)),
    (("NEG", "POS"), ("-1", "+1"), (0, 1)),
    (("NEG", "POS"), (FALSE, TRUE), (0, 1)),
    (("NEG", "POS"), ("False", "TRUE"), (0, 1)),
    (("NEG", "POS"), ("LABEL_0", "LABEL_1"), (0, 1)),
    (("NEG", "POS"), ("label_1", "label_2"), (0, 1)),
    (("POS", "NEG"), (1, 2), None), (("POS", "NEG"), (-1, 1), None), (("POS", "NEG"), (FALSE, TRUE), None),
    (("NEG", "POS"), (0, 4), None), (("NEG", "POS"), (3, 5), None), (("NEG", "POS"), ("bad", "good"), None), (("NEG", "POS"), (0.5, 1.5), None),
    (("NEG", "POS"), ("00", "01"), None), (("NEG", "POS"), ("NEG", "NEGATIV"), None),
    (("1.0", "0.0"), (0.0, 1.0), (1, 0)), (("1.0", "0.0"), (0, 1), (1, 0)), (("1.0", "0.0"), ("0", "1"), (1, 0)), (("1.0", "0.0"), ("0.0", "1.0"), (1, 0)),
    (("0.0", "1.0"), (0.0, 1.0), (0, 1)), (("0", "1"), (0.0, 1.0), (0, 1)), (("1", "0"), (0.0, 1.0), (1, 0)), (("1", "0"), (FALSE, TRUE), (1, 0)),
    (("1", "0"), ("LABEL_0", "LABEL_1"), (1, 0)),
    (("1", "2"), (1, 2), (0, 1)), (("2", "1"), (1, 2), (1, 0)), (("1", "2"), (0, 1), None), (("-1", "1"), (-1.0, 1.0), (0, 1)), (("1", "-1"), (-1, 1), (1, 0)),
    (("4", "0"), (0, 4), (1, 0)), (("0", "4"), (0.0, 4.0), (0, 1)),
    (("True", "False"), (FALSE, TRUE), (1, 0)), (("True", "False"), ("false", "true"), (1, 0)), (("True", "False"), (0, 1), (1, 0)),
    (("False", "True"), (0.0, 1.0), (0, 1)), (("False", "True"), (FALSE, TRUE), (0, 1)),
    (("LABEL_0", "LABEL_1"), (0, 1), (0, 1)), (("LABEL_1", "LABEL_0"), (0, 1), (1, 0)), (("LABEL_1", "LABEL_0"), ("LABEL_0", "LABEL_1"), (1, 0)),
    (("01", "00"), ("00", "01"), (1, 0)), (("01", "00"), (0, 1), None),
    (("ham", "spam"), (0, 1), (0, 1)), (("ham", "spam"), (FALSE, TRUE), (0, 1)), (("spam", "ham"), ("HAM", "Spam"), (1, 0)),
    (("pos", "positive"), ("pos", "positive"), (0, 1)), (("Größe", "Maß"), ("GRÖSSE", "MASS"), (0, 1)),
    ((0, 1), (0, 1), (0, 1)), ([1, 0], (0.0, 1.0), (1, 0)), ((TRUE, FALSE), (FALSE, TRUE), (1, 0)),
]


def write_as(path, column):
    "A table with a label column, as pandas writes it"
    table = pd.DataFrame(dict(text=[f"film number {i}" for i in range(len(column))], label=column))
    if path.suffix == ".csv": table.to_csv(path, index=False)
    elif path.suffix == ".jsonl": table.to_json(path, orient="records", lines=True)
    else: table.to_parquet(path)
    return path


@pytest.mark.filterwarnings("ignore:the labels are read by their order")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels, written, classes", ROWS)
def test_which_class_a_label_means(tmp_path, ending, labels, written, classes):
    path = write_as(tmp_path/f"pile.{ending}", [written[i % 2] for i in range(12)])
    settings = replace(SMALL, data=str(path), labels=labels)
    if classes is None:
        message = one_line(load_reviews, settings)
        assert "is not one of " + ", ".join(labels) in message and "set labels=" in message
    else:
        reviews = load_reviews(settings)
        assert all(classes[int(text.split()[-1]) % 2] == label for split in reviews.values() for text, label in zip(split["text"], split["label"]))


@pytest.mark.parametrize("names, labels, classes", [
    (("neg", "pos"), ("NEG", "POS"), (0, 1)), (("pos", "neg"), ("NEG", "POS"), (1, 0)), (("positive", "negative"), ("NEG", "POS"), (1, 0)),
    (("neg", "pos"), ("POS", "NEG"), (1, 0)), (("1", "0"), ("NEG", "POS"), (1, 0)), (("LABEL_1", "LABEL_0"), ("NEG", "POS"), (1, 0)),
    (("True", "False"), ("NEG", "POS"), (1, 0)), (("1", "0"), ("0", "1"), (1, 0)), (("1.0", "0.0"), ("1", "0"), (0, 1)), (("1", "2"), ("NEG", "POS"), (0, 1)),
    (("2", "1"), ("NEG", "POS"), (1, 0)), (("2", "1"), ("1", "2"), (1, 0)),
])
@pytest.mark.filterwarnings("ignore:the labels are read by their order")
def test_names_of_classes_win_over_their_numbers(tmp_path, names, labels, classes):
    reviews = from_file(tmp_path, with_classes(list(names)), labels=labels)
    assert all(classes[int(text.split()[-1]) % 2] == label for text, label in zip(reviews["train"]["text"], reviews["train"]["label"]))


@pytest.mark.parametrize("seen, classes", [((-1, 0, 1), (0, 1, 2)), ((1, 2, 3), (0, 1, 2)), ((0, 1, 2), (0, 1, 2)), (("neg", "neu", "pos"), (0, 1, 2)), (("LABEL_0", "LABEL_1", "LABEL_2"), (0, 1, 2))])
@pytest.mark.filterwarnings("ignore:the labels are read by their order")
def test_three_classes(tmp_path, seen, classes):
    path = write_as(tmp_path/"pile.csv", [seen[i % 3] for i in range(30)])
    reviews = load_reviews(Settings(data=str(path), labels=("negative", "neutral", "positive"), n_train=20, n_validation=5, n_test=5))
    assert all(classes[int(text.split()[-1]) % 3] == label for text, label in zip(reviews["train"]["text"], reviews["train"]["label"]))


def test_numbers_beside_the_words_true_and_false_count_from_0():
    assert label_lookup(("true", "false", "unknown"), {"0", "1", "2"})["0"] == 0


@pytest.mark.parametrize("labels, column, words", [
    (("POS", "NEG"), (0, 1), "0 as POS, 1 as NEG"), (("NEG", "POS"), (1, 2), "1 as NEG, 2 as POS"), (("NEG", "POS"), (TRUE, FALSE), "false as NEG, true as POS")])
def test_reading_by_order_is_said(tmp_path, labels, column, words):
    with pytest.warns(UserWarning, match=words): from_file(tmp_path, rows(label=lambda i: column[i % 2]), labels=labels)


def test_what_a_label_means_does_not_depend_on_the_rows_picked(tmp_path):
    path = write_as(tmp_path/"test.parquet", [1]*11 + [2])    # one row of class 2, which a sample may miss
    write_as(tmp_path/"train.parquet", [1, 2]*6)
    with pytest.warns(UserWarning, match="1 as NEG, 2 as POS"):
        reviews = load_reviews(replace(SMALL, data=str(path.parent), n_test=1), splits=("test",))
    assert reviews["test"]["label"][:] == [0]


def test_the_remedy_for_unknown_labels_works(tmp_path):
    write_as(tmp_path/"pile.csv", ["so-so", "bad", "good"]*8)
    settings = Settings(data=str(tmp_path/"pile.csv"), n_train=12, n_validation=4, n_test=4)
    remedy = one_line(load_reviews, settings).split("set labels=")[1].split(", as ")[0]
    assert load_reviews(replace(settings, labels=remedy.split(",")))["train"].features["label"].names == ["so-so", "bad", "good"]


def test_named_and_bare_labels_do_not_mix(tmp_path):
    with_classes(["pos", "neg"]).to_parquet(tmp_path/"train.parquet"), rows().to_parquet(tmp_path/"test.parquet")
    assert "the labels of train have names and those of test are bare numbers" in one_line(load_reviews, replace(SMALL, data=str(tmp_path)))
