"""What was not asked to change comes out as it went in: columns, records, characters, order; and nothing of a person's is lost."""
import csv, datetime, decimal, io, json, tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings as trials, strategies as st
from sentiment_nbdev.files import InputError
from sentiment_nbdev.answers import label_texts, predict_file, write_rows
from sentiment_nbdev.prediction import Prediction
from sentiment_nbdev.settings import Settings

MANY = trials(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(['say "hi"', "a\rb", "a\r\nb", "a,b;c\td", "007", "1e-12", "NA", "\ufeff", "=1+1", " x "])
SIMPLE = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.sampled_from(["2024-02-30", "2024-01-31T10:00:00Z", 1e-12, 2**53 + 1])
JSON = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5)
COLUMNS = {pa.int64(): st.integers(-2**63, 2**63 - 1), pa.string(): TEXT, pa.binary(): st.binary(max_size=9), pa.date32(): st.dates(), pa.float32(): st.floats(width=32, allow_nan=False),
           pa.list_(pa.int8()): st.lists(st.integers(-128, 127), max_size=3), pa.decimal128(20, 4): st.decimals(-10**9, 10**9, places=4), pa.bool_(): st.booleans(),
           pa.timestamp("ns"): st.integers(0, 2**62), pa.map_(pa.string(), pa.int8()): st.lists(st.tuples(TEXT, st.integers(0, 9)), max_size=2, unique_by=lambda pair: pair[0])}


class Critic:
    "Answers at once, so that the test is about files"
    settings = Settings()
    def predict(self, texts): return [Prediction("POS", 0.75)] * len(texts)


def there_and_back(source, target, **kind):
    "Read, predict, write; the answers"
    with tempfile.TemporaryDirectory() as cache:
        rows = predict_file(Critic(), source, cache=cache)
        write_rows(rows, target, source)
        return rows["predicted"][:]


@pytest.fixture(scope="module")
def place(tmp_path_factory): return tmp_path_factory.mktemp("tables")


@MANY
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6), delimiter=st.sampled_from([",", ";", "\t"]), end=st.sampled_from(["\n", "\r\n"]),
       quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), ending=st.sampled_from(["csv", "tsv"]))
def test_csv(place, rows, delimiter, end, quoting, ending):
    if ending == "tsv": delimiter = "\t"
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n", quoting=quoting).writerows([["id", "text", "note"], *rows])
    if quoting == csv.QUOTE_ALL: text = io.StringIO(text.getvalue().replace("\r\n", end))       # other line ends, inside cells, too
    (place/f"in.{ending}").write_bytes(text.getvalue().encode())
    if delimiter == "\t" and any("\t" in cell and set("\r\n") & set(cell) for row in rows for cell in row):           # it may hold other rows
        with pytest.raises(InputError, match="behind tabs of other rows"): predict_file(Critic(), place/f"in.{ending}")
        return
    there_and_back(place/f"in.{ending}", place/f"out.{ending}")
    def cells(name): return list(csv.reader(io.StringIO((place/name).read_bytes().decode(), newline=""), delimiter=delimiter, strict=True))
    assert [row[:3] for row in cells(f"out.{ending}")] == cells(f"in.{ending}")
    assert [row[3] for row in cells(f"out.{ending}")[1:]] == ["POS" if row[1].strip() else "" for row in cells(f"in.{ending}")[1:]]


@MANY
@given(rows=st.lists(st.dictionaries(TEXT.filter(lambda name: name not in ("text", "predicted", "probability", "error") and "\0" not in name), JSON, max_size=3), min_size=1, max_size=5), text=TEXT)
def test_jsonl(place, rows, text):
    rows = [row | dict(text=text) for row in rows]
    (place/"in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    there_and_back(place/"in.jsonl", place/"out.jsonl")
    again = [json.loads(line) for line in (place/"out.jsonl").read_bytes().decode().split("\n")[:-1]]
    assert [{name: value for name, value in row.items() if name not in ("predicted", "probability", "error")} for row in again] == rows
    written = zip((place/"in.jsonl").read_bytes().split(b"\n"), (place/"out.jsonl").read_bytes().split(b"\n"))
    assert all(new.startswith(old[:-1]) for old, new in written)                                    # to the last digit, as it was written
    assert [list(row)[-3:] for row in again] == [["predicted", "probability", "error"]] * len(rows)


@MANY
@given(data=st.data(), n=st.integers(1, 5), kinds=st.lists(st.sampled_from(list(COLUMNS)), max_size=4))
def test_parquet(place, data, n, kinds):
    columns = {f"c{i}": pa.array(data.draw(st.lists(st.none() | COLUMNS[kind], min_size=n, max_size=n)), kind) for i, kind in enumerate(kinds)}
    table = pa.table(dict(text=["a joy"] * n) | columns)
    pq.write_table(table, place/"in.parquet")
    assert there_and_back(place/"in.parquet", place/"out.parquet") == ["POS"] * n
    assert pq.read_table(place/"out.parquet").select(table.column_names).equals(table)


def test_parquet_of_pandas_keeps_categories_and_index(place):
    frame = pd.DataFrame(dict(text=["a", "b"], kind=pd.Categorical(["x", "y"]), day=pd.to_datetime(["2024-01-31", None])), index=["r1", "r2"])
    frame.to_parquet(place/"p.parquet")
    there_and_back(place/"p.parquet", place/"q.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(place/"q.parquet")[list(frame)], frame)


VALUES = dict(small=1e-12, large=2**53 + 1, day=datetime.date(2024, 1, 31), code="007", price=decimal.Decimal("1.10"), raw=b"\x00\xff", tags=["a", "ü"], nothing=None, broken=float("nan"))
AS_TEXT = dict(small="1e-12", large="9007199254740993", day="2024-01-31", code="007", price="1.10", raw="AP8=", tags='["a", "ü"]', nothing="", broken="")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_another_format_gets_each_value_in_full(place, ending):
    pq.write_table(pa.Table.from_pylist([dict(text="a\rb") | VALUES]), place/"v.parquet")
    there_and_back(place/"v.parquet", place/f"v.{ending}")
    if ending != "jsonl":
        row, = csv.DictReader(io.StringIO((place/f"v.{ending}").read_bytes().decode(), newline=""), delimiter="," if ending == "csv" else "\t", strict=True)
        assert row == dict(text="a\rb") | AS_TEXT | dict(predicted="POS", probability="0.75", error="")
    else:
        row = json.loads((place/"v.jsonl").read_text(encoding="utf-8"))
        numbers = dict(small=1e-12, large=2**53 + 1, tags=["a", "ü"], nothing=None, broken=None)
        assert row == dict(text="a\rb") | AS_TEXT | numbers | dict(predicted="POS", probability=0.75, error="")


@pytest.mark.parametrize("name, content", [("x.csv", b"id,text\n007,a joy\n008,caf\xe9\n009,caf\xc3\xa9\n010,good\n"), ("x.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n{"text": "b"}\n'),
                                           ("x.txt", b"one\ntwo \xff\nthree\nfour\nfive\n")])
def test_a_broken_character_costs_its_row_only(place, name, content):
    (place/name).write_bytes(content)
    target = place/f"out-{name}"
    answers = there_and_back(place/name, target)
    assert answers == ["POS", "", *["POS"] * (len(answers) - 2)] and len(answers) > 2
    kept = [line[:len(old) - 1] for line, old in zip(target.read_bytes().splitlines(), content.splitlines())]
    if name != "x.txt": assert kept == [line[:-1] for line in content.splitlines()]                # the byte comes out as it went in


@pytest.mark.parametrize("name, content, words", [
    ("a.csv", b"text,text\na,b\n", "same name"), ("a.csv", "text\n" .encode() + "é\nè\n".encode("latin-1"), "UTF-8"), ("a.csv", b'text\n"a\n', "cannot read"),
    ("a.csv", b"text,id\na\n", "saw 1"), ("a.csv", b"remark\na\n", "set text_column to one of remark"), ("a.csv", b'"a"b,text\n1,2\n', "cannot read"),
    ("a.tsv", b'text\tid\n"a\t1\nb"\t2\n', "closes in line 3"), ("a.csv", b"text\na\nb\rc\n", "line 3: it ends unlike others"),
    ("a.jsonl", b"[1]\n", "no object"), ("a.jsonl", b'{"text": "a"\n', "line 1"), ("a.jsonl", b"[" * 100000, "line 1"), ("a.jsonl", b"\n\n", "no rows"), ("a.jsonl", b"{}\n", "no column 'text'"),
    ("a.parquet", b"PAR1", "cannot read"), ("a.xlsx", b"x", "must end in"), ("a.txt", b"", "empty")])
def test_a_file_that_cannot_be_labelled_says_why(place, name, content, words):
    (place/name).write_bytes(content)
    with pytest.raises(InputError, match="(?s).*" + words) as error: predict_file(Critic(), place/name)
    assert len(str(error.value).splitlines()) == 1


def test_answers_never_stand_behind_another_record(place):
    (place/"two.csv").write_text("id,text\n1,a joy\n2,a bore\n", encoding="utf-8")
    rows = predict_file(Critic(), place/"two.csv")
    for other in (rows.select([1, 0]), rows.select([0]), rows.sort("id", reverse=True)):
        with pytest.raises(InputError, match="in this order"): write_rows(other, place/"out.csv", place/"two.csv")
        assert len(pd.read_csv(write_rows(other, place/"free.csv"))) == len(other)


def test_a_parquet_that_is_damaged_inside_names_the_file(place):
    pq.write_table(pa.table(dict(text=["a"], other=pa.array([b"\xff"]).view("string"))), place/"bad.parquet")
    with pytest.raises(InputError, match=r"cannot read .*bad.parquet \(.*Invalid UTF8.*\): write it again"): predict_file(Critic(), place/"bad.parquet")
    pd.DataFrame(dict(text=["abc"] * 900)).to_parquet(place/"cut.parquet")
    content = (place/"cut.parquet").read_bytes()
    (place/"cut.parquet").write_bytes(content[:4] + b"\0" * 20 + content[24:])
    with pytest.raises(InputError, match=r"cannot read .*cut.parquet \(.*\): write it again"): predict_file(Critic(), place/"cut.parquet")


def test_a_pipe_is_not_replaced(command, tmp_path):
    import os
    os.mkfifo(tmp_path/"out.csv")
    code, out, err = command("predict", "nowhere", "a joy", "--output", "out.csv")
    assert (code, out) == (2, "") and "out.csv is no common file" in err and (tmp_path/"out.csv").is_fifo()


@pytest.mark.parametrize("out, words", [("file/x", "is no folder you may write to"), ("loop", "is a file"), ("gone/../x", "write it without .."), ("a\udcff", "cannot be the name of a file"), ("file", "is a file"), ("pipe", "is a file"),
                                        ("others", "other files in it"), (".", "the folder you are in")])
@pytest.mark.parametrize("arguments", [["train", "probe"], ["compare"], ["study", "mine", "--vary", "lora_r=1,2"], ["merge", "nowhere"]], ids=lambda arguments: arguments[0])
def test_a_place_for_results_is_checked_before_the_work(command, tmp_path, arguments, out, words):
    "Nothing of a person is replaced: reports have common names"
    import os
    (tmp_path/"file").write_text("mine")
    (tmp_path/"loop").symlink_to("loop")
    os.mkfifo(tmp_path/"pipe")
    (tmp_path/"others").mkdir()
    for name in ("report.md", "table.csv"): (tmp_path/"others"/name).write_text("mine")
    code, printed, err = command(*arguments, "--out", out)
    assert (code, printed, len(err.splitlines())) == (2, "", 1) and words in err, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "others", "pipe"] and (tmp_path/"others/report.md").read_text() == "mine"


def test_a_model_is_not_replaced_by_what_starts_from_it(command, tiny_encoder, tmp_path):
    import shutil
    here = shutil.copytree(tiny_encoder, tmp_path/"mine")
    (here/"sentiment.json").write_text("{}")
    before = (here/"model.safetensors").read_bytes()
    for arguments in (["train", "probe", "--model", "mine"], ["merge", "mine"], ["merge", "other", "--base", str(here)]):
        code, out, err = command(*arguments, "--out", "./mine")
        assert (code, out) == (2, "") and "is what the work starts from" in err, err
    assert (here/"model.safetensors").read_bytes() == before


def test_a_refusal_of_the_disk_says_where_and_what_helps(command, monkeypatch):
    import errno
    from sentiment_nbdev import cli
    for number, words in ((errno.ENOSPC, "free some space"), (errno.EACCES, "cannot be read or written (Permission denied): check the path and your rights")):
        def refuse(*_, number=number): raise OSError(number, __import__("os").strerror(number), "x.ini")
        monkeypatch.setattr(cli, "write_settings", refuse)
        code, out, err = command("init")
        assert (code, out, len(err.splitlines())) == (2, "", 1) and words in err and "Errno" not in err.split("(")[0], err


@pytest.mark.parametrize("name, content", [("mine.csv", "day,text\n1,dear diary\n"), ("mine.jsonl", '{"day": 1}\n'), ("mine.txt", "dear diary\n"), ("mine.parquet", "no parquet\n")])
def test_a_file_of_the_persons_is_not_replaced_by_answers(place, name, content):
    (place/name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="holds no answers"): write_rows(label_texts(Critic(), ["a joy"]), place/name)
    assert (place/name).read_text(encoding="utf-8") == content


def test_answers_of_an_earlier_call_are_replaced(place):
    (place/"in.csv").write_text("text\na joy\n", encoding="utf-8")
    for _ in range(2): write_rows(predict_file(Critic(), place/"in.csv"), place/"out.csv", place/"in.csv")
    assert pd.read_csv(place/"out.csv")["predicted"].tolist() == ["POS"]


def test_columns_behind_the_answers_are_the_persons(place):
    (place/"mine.csv").write_text("text,predicted,probability,error,my_correction\na joy,POS,0.9,,NEG\n", encoding="utf-8")
    with pytest.raises(InputError, match="columns behind its answers .*my_correction"):
        write_rows(label_texts(Critic(), ["a joy"]), place/"mine.csv")
    assert (place/"mine.csv").read_text(encoding="utf-8").endswith("NEG\n")
