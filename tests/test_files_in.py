"""Files and folders as people have them: the right rows, or one line that names the remedy."""
import gzip, json, tempfile, warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from sentiment_nbdev.data import load_reviews
from sentiment_nbdev.files import InputError, read_json, read_seen
from sentiment_nbdev.rows import check_rows
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.sources import read_folder, read_rows, read_source

SMALL = dict(n_train=6, n_validation=2, n_test=4)
KINDS = ("csv", "tsv", "jsonl", "parquet")


def write(path, table):
    "A table as pandas writes it"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".csv", ".tsv"): table.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".jsonl": table.to_json(path, orient="records", lines=True)
    else: table.to_parquet(path)


def table(word, n=12): return pd.DataFrame(dict(text=[f"{word} {i}" for i in range(n)], label=["NEG", "POS"] * (n // 2)))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(["NA", "null", "01", "1e5", " ", "", "\r", "a\r\nb", '"', 'x"y', ",", ";", "-", "=1+1", "2024-01-01", "\ufeff", "\x00", "{}", "[", "#"])
LABELS = st.sampled_from([("NEG", "POS"), ("Negative", "positive"), (0, 1), (0.0, 1.0), (False, True), ("LABEL_0", "LABEL_1")])


@pytest.mark.filterwarnings("ignore:the labels are read by their order")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(texts=st.lists(TEXTS, min_size=4, max_size=12), pair=LABELS, ending=st.sampled_from(KINDS), data=st.data())
def test_any_table_is_read_back_or_refused(texts, pair, ending, data):
    classes = [0, 1] + data.draw(st.lists(st.integers(0, 1), min_size=len(texts) - 2, max_size=len(texts) - 2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/f"pile.{ending}"
        write(path, pd.DataFrame(dict(text=texts, label=[pair[i] for i in classes])))
        chosen = Settings(data=str(path), n_train=len(texts) - 2, n_validation=1, n_test=1)
        try: rows = read_rows(path)
        except InputError as e: assert ending in ("csv", "tsv") and len(str(e).splitlines()) == 1, e     # a lone \r, which pandas does not quote
        else:
            assert rows["text"][:] == texts
            assert check_rows_or_refuse(rows, texts, chosen) in (classes, "refused")


def check_rows_or_refuse(rows, texts, chosen):
    "The class numbers of all rows; \"refused\" when a text is empty"
    try: return check_rows(rows, "pile", range(len(rows)), chosen)["label"][:]
    except InputError as e:
        assert "the text is empty" in str(e) and not all(text.strip() for text in texts), e
        return "refused"


def refusal(call, *args):
    "The one line of the `InputError` that a call raises"
    with pytest.raises(InputError) as caught: call(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# ---- a name is never a pattern

NAMES = ["reviews[1]", "reviews?", "reviews*", "a{b,c}d", "two  blanks", "Größe", "映画", "a::b", "x%20y", "data={}", "file:x", "#1", "[!r]*", "'q'", "~x", "-dash"]


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_named_file_is_read_and_no_other(tmp_path, ending, name):
    write(tmp_path/f"{name}.{ending}", table("this one"))
    for other in ("reviews1", "reviews12", "abd", "acd", "x y"): write(tmp_path/f"{other}.{ending}", table("another"))
    assert read_rows(tmp_path/f"{name}.{ending}")["text"][:] == [f"this one {i}" for i in range(12)]


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_named_folder_is_read_and_no_other(tmp_path, ending, name):
    for split in ("train", "test"):
        write(tmp_path/name/f"{split}.{ending}", table("this one"))
        for other in ("reviews1", "reviews12", "abd", "acd", "x y"): write(tmp_path/other/f"{split}.{ending}", table("another"))
    assert {split: set(rows["text"]) for split, rows in read_folder(tmp_path/name).items()} == dict.fromkeys(("train", "test"), set(table("this one")["text"]))


def test_a_relative_name_with_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/"a[1].csv", table("this one")), write(tmp_path/"a1.csv", table("another"))
    assert load_reviews(Settings(data="a[1].csv", **SMALL))["train"]["text"][0].startswith("this one")


@pytest.mark.parametrize("name", ["~nobody-here/x.csv", "a\0b.csv", "x"*5000 + ".csv", "[.csv", "**/*.csv", "https://example.org/x.csv", "s3://bucket/x.csv"])
def test_names_of_nothing(name): assert "no file or folder" in refusal(read_source, Settings(data=name))


# ---- the corpus and a file of that name

@pytest.mark.parametrize("kind", ["file", "folder"])
def test_corpus_says_that_it_is_not_the_file(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "file": (tmp_path/"corpus").write_text("text,label\n")
    else: write(tmp_path/"corpus"/"train.csv", table("mine"))
    with pytest.warns(UserWarning, match=r"^corpus is the bundled corpus; write \./corpus"): assert len(read_source(Settings())["train"]) == 1000
    if kind == "folder": assert read_source(Settings(data="./corpus"))["train"]["text"][0] == "mine 0"


# ---- folders

def folder_of(tmp_path, files):
    for name, content in files.items():
        if isinstance(content, pd.DataFrame): write(tmp_path/name, content)
        else:
            (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path/name).write_bytes(content)
    return tmp_path


JUNK = {".ipynb_checkpoints/aaa-checkpoint.csv": b"a;b;c\n\xff\n", "__MACOSX/._train.csv": b"\0\5\x16\7", ".DS_Store": b"\0", "._test.csv": b"\0\5\x16\7",
        ".~lock.train.csv#": b"x", "~$train.csv": b"\0", ".git/train.csv": b"x", "__pycache__/a.csv": b"", "README.md": b"# mine\n", "Thumbs.db": b"\0"}


def test_what_the_system_leaves_in_a_folder_is_not_read(tmp_path):
    folder = folder_of(tmp_path, JUNK | {"train.csv": table("train"), "test.csv": table("test")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_reviews(Settings(data=str(folder), **SMALL)).num_rows == dict(train=6, validation=2, test=4)


@pytest.mark.parametrize("files, splits", [
    ({"train.csv": "train", "test.csv": "test"}, "train test"),
    ({"Train.csv": "train", "TEST.csv": "test", "Valid.csv": "validation"}, "train validation test"),
    ({"training_1.csv": "train", "training_2.csv": "train", "dev.csv": "validation", "testing.csv": "test"}, "train validation test"),
    ({"train/a.csv": "train", "test/a.csv": "test", "val/a.csv": "validation"}, "train validation test"),
    *[({"train.tsv": "train", f"{word}.tsv": "validation", "test.tsv": "test"}, "train validation test") for word in ("val", "valid", "dev", "eval", "validation")],
    ({"train/training-a.csv": "train", "train/b.csv": "train", "test.csv": "test"}, "train test"),
    ({"data/train-00000-of-00001.csv": "train", "data/test-00000-of-00001.csv": "test"}, "train test"),
    ({"train[1].csv": "train", "test(1).csv": "test"}, "train test"),
    ({"reviews.test.csv": "test", "reviews.train.csv": "train"}, "train test"),
    ({"a.csv": "train", "contest.csv": "train", "trainer.csv": "train"}, "train"),
])
def test_names_say_the_split(tmp_path, files, splits):
    rows = read_folder(folder_of(tmp_path, {name: table(split) for name, split in files.items()}))
    assert list(rows) == splits.split()
    assert all(text.startswith(split) for split in rows for text in rows[split]["text"])
    assert sum(map(len, rows.values())) == 12*len(files)


def test_files_without_a_split_beside_files_with_one(tmp_path):
    folder = folder_of(tmp_path, {"train.csv": table("train"), "test.csv": table("test"), "notes.csv": b"day\n1\n"})
    with pytest.warns(UserWarning, match="^notes.csv left out: no split in the name"): assert set(read_folder(folder)) == {"train", "test"}


@pytest.mark.parametrize("files, words", [
    ({"train.csv": table("a"), "test.csv": b"id,text\n1,x\n2,y\n3,z\n4,v\n"}, "test has no column 'label', which train has: add it"),
    ({"train.csv": table("a"), "test.csv": b"id,review\n1,x\n2,y\n3,z\n4,v\n"}, "test has no column 'text', which train has: add it"),
    ({"train1.csv": table("a"), "train2.csv": b"id,text\n1,x\n"}, "train2.csv has the columns id, text, but "),
    ({"train.csv": table("a"), "test.csv": b""}, "test.csv (it is empty): add rows"),
    ({"train.csv": table("a"), "test.csv": b"text,label\n"}, "test.csv (it has no rows): add rows"),
    ({"train_test.csv": table("a")}, "train_test.csv says test and train: rename it"),
    ({"train.csv": table("a"), "test.csv": table("b"), "val.csv": table("c"), "dev.csv": table("d")}, "val.csv both mean validation: keep one"),
    ({"train.csv": table("a"), "test.csv": table("b"), "eval/a.csv": table("c"), "valid/a.csv": table("d")}, "both mean validation: keep one"),
    ({"train.csv": table("a"), "test.jsonl": table("a")}, "holds .csv and .jsonl files"),
    ({"train.csv": table("a")}, "train has 12 rows"),
    ({"train.csv": table("a"), "dev.csv": table("b")}, "has no test split (it has: train, validation)"),
    ({"test.csv": table("a")}, "has no train split (it has: test)"),
    ({".train.csv": table("a")}, "holds no csv, tsv, jsonl or parquet files"),
    ({"a.xlsx": b"text\tlabel\n"}, "holds no csv, tsv, jsonl or parquet files"),
    ({"train1.jsonl": b'{"text": "x", "label": 1}\n', "train2.jsonl": b'{"text": "y", "label": {"a": "b"}}\n'}, "give each column one type"),
])
def test_folders_that_cannot_be_read(tmp_path, files, words):
    chosen = Settings(data=str(folder_of(tmp_path, files)), n_train=10, n_validation=2, n_test=4)
    assert words in refusal(load_reviews, chosen)


def test_columns_in_another_order_are_the_same_columns(tmp_path):
    folder = folder_of(tmp_path, {"train1.csv": table("a"), "train2.csv": table("b")[["label", "text"]], "test.csv": table("c").assign(id=1)})
    assert read_folder(folder)["train"]["text"][12:14] == ["b 0", "b 1"]


# ---- files that cannot be read, and what helps

@pytest.mark.parametrize("name, content, words", [
    ("a.csv", b"text;label\na film; long;POS\n", "line 2 has 3 cells, the header 2): quote texts that hold a semicolon"),
    ("a.csv", b"sep=;\ntext;label\n", "its first line is no header): remove this line"),
    ("a.csv", "text,label\nä,POS\n".encode("utf-16")[:-1], "is not utf-16): save it as UTF-8"),
    ("a.csv", "text,label\na,POS\n".encode("utf-16-le"), "as UTF-16 does): save it as UTF-8"),
    ("a.csv", b"text,label\n\xc3\xa4,POS\n\xe4,POS\n", "line 3 is not utf-8): save it as UTF-8"),
    ("a.csv", "text,label\nок,POS\n".encode("cp1251"), "line 2 is not utf-8): save it as UTF-8"),
    ("a.csv", "text,label\nωραία,POS\n".encode("cp1253"), "line 2 is not utf-8): save it as UTF-8"),
    ("a.csv", "text,label\n映画,POS\n".encode("shift_jis"), "line 2 is not utf-8): save it as UTF-8"),
    ("a.csv", b"text,text\nx,y\n", "two columns have the name 'text'): rename one"),
    ("a.csv", b'text,label\n"say "hi" x",POS\n', 'line 2: \',\' expected after \'"\'): double the quotes'),
    ("a.csv", b'text,label\nx,POS\n"y,POS\nz,NEG\n', "line 3: it opens a quote that is never closed): close it"),
    ("a.csv", b"text,label\n\n\n", "it has no rows): add rows"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n{"text": "b"}\n', "line 2 is not utf-8): save it as UTF-8"),
    ("a.jsonl", b'[{"text": "a"},\n{"text": "caf\xe9"}]\n', "line 2 is not utf-8): save it as UTF-8"),
    ("a.jsonl", b'{"text": "a"}\n\n{"text": }\n', "line 3 is not JSON"),
    ("a.jsonl", b'{"text": "a"}\n"b"\n', "line 2 is no object"),
    ("a.jsonl", b'{\n"text": "a"\n}\n', "line 1 is not JSON"),
    ("a.jsonl", b'[{"text": "a"}, 7]', "item 1 is no object"),
    ("a.jsonl", b"[" * 100_000, "cannot read"),
    ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n", "line 1 is not JSON"),
    ("a.jsonl", b"{}\n{}\n", "it has no rows"),
    ("a.tsv", b"text\tlabel\n", "it has no rows"),
    ("a.tsv", b"text\tlabel\nx\ty\tPOS\n", "line 2 has 3 cells, the header 2): quote texts that hold a tab"),
    ("a.tsv", b'text\tlabel\n"Fun", he said\tPOS\n', "line 2: a tab expected after '\"'): double the quotes"),
    ("a.tsv", b'text\tlabel\nok\tPOS\n"Fun\tPOS\nmore\tNEG\n', "line 3: it opens a quote that is never closed"),
    ("a.tsv", b'text\tlabel\nok\tPOS\n"Fun\tPOS\nmore"\tNEG\n', "line 3: it opens a quote that closes in line 4, behind tabs of other rows): double the quotes"),
    ("a.tsv", b'label\ttext\nPOS\t"Fun\nNEG"\tmore\n', "line 2 has 3 cells, the header 2"),
    ("a.json", b"[]", "it has no rows"),
    ("a.json", b'{"text": {"0": "a"}\n', "line 1 is not JSON"),
    ("a.csv.gz", b"text,label\nx,POS\n", "Not a gzipped file"),
    ("a.csv.gz", gzip.compress(b"text,label\n" + b"x,POS\n"*99, mtime=0)[:-9], "end-of-stream marker"),
    ("a.csv.gz", gzip.compress(b"text,label\n", mtime=0), "it has no rows"),
    ("a.xlsx", b"PK", "and .gz: save the sheet as CSV"), ("a.zip", b"PK", "and .gz: unpack it first"), ("a.doc", b"x", "and .gz: rename it"),
])
def test_the_remedy_fits(tmp_path, name, content, words):
    (tmp_path/name).write_bytes(content)
    assert words in refusal(read_rows, tmp_path/name)


@pytest.mark.parametrize("broken, array", [(rb'"\ud83d x"', False), (rb'"\ud83d x"', True), (b'"caf\xe9"', False), (b'"\xf0\x9f\x8e x"', False)])
def test_half_a_character_costs_its_row_only(tmp_path, broken, array):
    "Whoever picks the row is told which one it is; the other rows are whole"
    lines = [b'{"text": "caf\xc3\xa9 %d", "label": %d}' % (n, n % 2) for n in range(8)]
    lines[3] = b'{"text": %s, "label": 1}' % broken
    (tmp_path/"a.jsonl").write_bytes(b"[" + b",".join(lines) + b"]" if array else b"\n".join(lines))
    rows, chosen = read_rows(tmp_path/"a.jsonl"), Settings()
    whole = [n for n in range(8) if n != 3]
    assert check_rows(rows.select(whole), "a.jsonl", whole, chosen)["text"][:] == [f"café {n}" for n in whole]
    assert "row 3 of a.jsonl: the text is {'half a character in': " in refusal(check_rows, rows, "a.jsonl", range(8), chosen)


def test_a_jsonl_that_is_one_array(tmp_path):
    (tmp_path/"a.jsonl").write_text('[{"text": "x", "label": 1},\n {"text": "y", "label": 0}]')
    assert read_rows(tmp_path/"a.jsonl").to_list() == [dict(text="x", label=1), dict(text="y", label=0)]


@pytest.mark.parametrize("values", [["2024-01-01", "2024-01-02"], [4.5e-12, 1.0], [2**62 + 1, 3], [[1, 2], []], [1, "x"], ["1", 1], ["null", 1, '{"a": 1}', dict(b=2)], [dict(a=1), dict(b=[None])], [True, 1], [None, "x"], [1, 2.5]])
@pytest.mark.parametrize("rows", [1, 10_001])             # alone, and with its second value in another chunk
def test_values_of_a_jsonl_are_what_they_were(tmp_path, values, rows):
    column = [values[0]]*rows + values[1:]
    (tmp_path/"a.jsonl").write_text("".join(json.dumps(dict(text="x", value=value)) + "\n" for value in column))
    for cache in (None, str(tmp_path/"cache")): assert read_rows(tmp_path/"a.jsonl", cache)["value"][:] == column


def test_parquet_with_broken_text_and_with_categories(tmp_path):
    pq.write_table(pa.table(dict(text=pa.array([b"x", b"\xff"], pa.binary()).view(pa.string()))), tmp_path/"a.parquet")
    assert "Invalid UTF8" in refusal(read_rows, tmp_path/"a.parquet")
    write(tmp_path/"b.parquet", table("a").astype(dict(label="category")))
    assert read_rows(tmp_path/"b.parquet")["label"][:2] == ["NEG", "POS"]


@pytest.mark.parametrize("error, words", [(OSError(28, "No space left on device"), "free some disk space"), (PermissionError(13, "Permission denied"), "the right to read it")])
def test_the_machine_is_not_the_file(tmp_path, monkeypatch, error, words):
    def fail(*_): raise error
    write(tmp_path/"a.csv", table("a"))
    monkeypatch.setattr(pa, "OSFile", fail)
    assert words in refusal(read_rows, tmp_path/"a.csv", str(tmp_path/"cache"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n"])
def test_ends_of_lines(tmp_path, end):
    (tmp_path/"a.csv").write_bytes(end.join([b"text,label", b"a film,POS", b'"two\nlines",NEG', b""]))
    assert read_rows(tmp_path/"a.csv")["text"][:] == ["a film", "two\nlines"]


def test_a_row_that_ends_unlike_the_others_is_refused(tmp_path):
    (tmp_path/"a.csv").write_bytes(b"text,label\na film,POS\nhalf\ra text,NEG\n")
    assert "line 3: it ends unlike others): quote texts that hold a line break" in refusal(read_rows, tmp_path/"a.csv")


@pytest.mark.parametrize("content, changes, words", [
    (b"text,'label'\nx,POS\n", {}, "set label_column to one of text, 'label'"),
    (b"text,label\nx,\n", {}, "label '' is not one of NEG, POS: correct or remove the row"),
    (b"text,label\nx,POS\n", dict(text_column="label"), "text_column and label_column are both label"),
    (b"text,label\nx," + b"y"*500 + b"\n", {}, "yyy is not one of NEG, POS"),
])
def test_rows_that_cannot_be_used(tmp_path, content, changes, words):
    (tmp_path/"a.csv").write_bytes(content + content.split(b"\n")[1] + b"\n" + content.split(b"\n")[1] + b"\n")
    assert words in refusal(load_reviews, Settings(data=str(tmp_path/"a.csv"), n_train=1, n_validation=1, n_test=1, **changes))


@pytest.mark.parametrize("name, words", [("", "data is empty"), (" ", "data is empty"), ("corpus/", "no file or folder corpus/"), ("x"*300, "no file or folder xxx")])
def test_names_that_are_no_hub_names(name, words): assert words in refusal(read_source, Settings(data=name))


CARD = "---\nconfigs:\n- config_name: mine\n  data_files:\n  - split: train\n    path: first*.csv\n  - split: test\n    path: second.csv\n---\n# Mine\n"


def test_a_folder_from_the_hub_says_its_splits_itself(tmp_path):
    folder = folder_of(tmp_path, {"README.md": CARD.encode(), "first_test.csv": table("train"), "second.csv": table("test"), "third.csv": b"a;b\n"})
    assert {split: rows["text"][0] for split, rows in read_folder(folder).items()} == dict(train="train 0", test="test 0")


@pytest.mark.parametrize("card, words", [
    (CARD.replace("second.csv", "nowhere.csv"), "names files of test that are not there"),
    (CARD.replace("---\n# Mine", CARD[13:].replace("mine", "other")), "several data sets and no default"),
    ("---\nconfigs: 3\n---\n", "correct the head of this file"), ("---\n: [\n---\n", "correct the head of this file")])
def test_a_wrong_head_of_a_readme(tmp_path, card, words):
    assert words in refusal(read_folder, folder_of(tmp_path, {"README.md": card.encode(), "first.csv": table("train"), "second.csv": table("test")}))


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[]", b"7", b"{}", b'{"sha256_64": 7}', b'{"sha256_64": "a"}', b"[" * 100_000])
def test_a_json_file_that_is_not_what_it_should_be(tmp_path, content):
    path = tmp_path/"seen_texts.json"
    if content is not None: path.write_bytes(content)
    if content != b'{"sha256_64": "a"}':
        assert f"{path} is not a list (" in refusal(read_json, path, "a list", "make it again", lambda payload: payload["sha256_64"] + "")
    if content is None: assert read_seen(tmp_path) is None
    else: assert f"{path} is not a list of fingerprints (" in refusal(read_seen, tmp_path)


def test_a_link_to_nowhere_is_no_missing_file(tmp_path):
    "A folder with half of its rows elsewhere would be half a data set, or one with another validation split"
    folder = folder_of(tmp_path, {"train.csv": table("a"), "test.csv": table("b")})
    (folder/"val.csv").symlink_to("nowhere.csv")
    assert "val.csv is no file, or a link to one that is not there" in refusal(read_folder, folder)


def test_a_table_of_many_columns_is_refused_in_a_short_line(tmp_path):
    (tmp_path/"a.csv").write_text(",".join(f"c{n}" for n in range(5000)) + "\n" + ",".join("x" * 5000) + "\n")
    words = refusal(check_rows, read_rows(tmp_path/"a.csv"), "a.csv", [0], Settings())
    assert "set text_column to one of c0, c1, " in words and words.endswith("… (5000 in all)") and len(words) < 200


def test_a_group_column_of_one_group_is_no_matter_of_fewer_rows(tmp_path):
    write(tmp_path/"a.csv", table("a").assign(film="x"))
    assert "name a column of more and smaller groups" in refusal(load_reviews, Settings(data=str(tmp_path/"a.csv"), group_column="film", **SMALL))
