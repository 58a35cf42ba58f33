"""Files as they are: what a file says by itself is found and said, what somebody named stays, and nothing is read wrongly in silence."""
import csv, gzip, io, json
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from sentiment_nbdev.data import load_reviews
from sentiment_nbdev.files import InputError, separator, text_encoding
from sentiment_nbdev.readers import read_rows
from sentiment_nbdev.settings import ALL, Settings
from sentiment_nbdev.sources import read_folder
from sentiment_nbdev.understand import find_classes, find_column, fit_sizes, named_settings, understand

GUESS = "ignore:.* is read as cp1252"


def refusal(call, *args, **keywords):
    with pytest.raises(InputError) as caught: call(*args, **keywords)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def table(n=80, labels=("bad", "good"), text="Ein schöner Film, Nummer {}"):
    return [dict(text=text.format(i), label=labels[i % len(labels)]) for i in range(n)]


def write(path, rows, mark=",", encoding="utf-8", header=None, bom=""):
    names = header or [*rows[0]]
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, delimiter=mark)
        writer.writerows([names, *(row.values() for row in rows)])
        content = (bom + file.getvalue()).encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# ---- letters and separators

@pytest.mark.filterwarnings(GUESS)
@pytest.mark.parametrize("encoding, bom", [("utf-8", ""), ("utf-8", "\ufeff"), ("cp1252", ""), ("utf-16", ""), ("utf-16-be", "\ufeff"), ("utf-16-le", "\ufeff")])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.CSV"])
def test_a_csv_of_any_country_holds_the_same_rows(tmp_path, name, mark, encoding, bom):
    rows = table(text='Größe "{}", naïf; l’été – so | lala')
    read = read_rows(write(tmp_path/name, rows, mark, encoding, bom=bom))
    assert read.to_list() == rows
    said = read.info.description
    assert ({";": "a semicolon", "\t": "a tab", "|": "a bar"}.get(mark, "") in said) and ("cp1252" in said) == (encoding == "cp1252") and ("utf-16" in said) == ("utf-16" in encoding)
    assert bool(said) == (mark != "," or encoding != "utf-8")


def test_a_guess_is_said_with_a_word_to_judge_it_by(tmp_path):
    write(tmp_path/"a.csv", table(), encoding="cp1252")
    with pytest.warns(UserWarning, match="^a.csv is not UTF-8 and is read as cp1252, with words such as 'schöner': if that is wrong, save it as UTF-8$"): read_rows(tmp_path/"a.csv")


@pytest.mark.parametrize("encoding, text", [("cp1251", "хороший фильм {}"), ("cp1253", "ωραία ταινία {}"), ("shift_jis", "良い映画 {}"), ("gbk", "好电影非常好看 {}"), ("koi8-r", "хороший фильм {}"), ("cp1255", "סרט טוב {}")])
def test_other_letters_are_refused_and_not_turned_into_western_ones(tmp_path, encoding, text):
    write(tmp_path/"a.csv", table(text=text), encoding=encoding)
    assert text_encoding(tmp_path/"a.csv") == "utf-8" and "save it as UTF-8" in refusal(read_rows, tmp_path/"a.csv")


def test_one_broken_byte_in_utf8_is_no_other_encoding(tmp_path):
    (tmp_path/"a.csv").write_bytes("text,label\nein schöner Film,POS\nein sch".encode() + b"\xf6" + b"ner Film,NEG\n")
    assert "line 3 is not utf-8" in refusal(read_rows, tmp_path/"a.csv")


@pytest.mark.parametrize("header, mark", [("text,label", ","), ("text;label", ";"), ('"text, or review";label', ";"), ("text", ","), ("a;b;c,d", ";"), ("text|label", "|"), ("\n\ntext;label", ";")])
def test_the_separator_is_what_the_header_has_outside_quotes(tmp_path, header, mark):
    (tmp_path/"a.csv").write_text(header + "\n")
    assert separator(tmp_path/"a.csv") == mark


def test_a_json_file_is_lines_or_an_array(tmp_path):
    rows = [dict(id=2**53 + 1, text="a", tags=["x", None]), dict(id=2**62 + 1, text="ü", tags=[])]
    for name, content in {"a.json": json.dumps(rows, indent=2), "b.json": "\n".join(map(json.dumps, rows)), "c.jsonl": json.dumps(rows)}.items():
        (tmp_path/name).write_text(content)
        (tmp_path/f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        assert read_rows(tmp_path/name).to_list() == read_rows(tmp_path/f"{name}.gz").to_list() == rows


# ---- folders

def test_a_folder_of_packed_files(tmp_path):
    for split in ("train", "dev", "test"): write(tmp_path/f"{split}.csv.gz", table(6, text=split + " {}"))
    assert {split: rows["text"][0] for split, rows in read_folder(tmp_path).items()} == dict(train="train 0", validation="dev 0", test="test 0")
    write(tmp_path/"train.csv", table(6))
    assert "train.csv.gz is also there unpacked: keep one of the two" in refusal(read_folder, tmp_path)


def test_json_beside_data_is_about_the_data(tmp_path):
    write(tmp_path/"train.csv", table(6)), (tmp_path/"dataset_infos.json").write_text("{}")
    assert [*read_folder(tmp_path)] == ["train"]
    for split in ("train", "test"): (tmp_path/"only").mkdir(exist_ok=True), (tmp_path/"only"/f"{split}.json").write_text(json.dumps(table(6)))
    assert [*read_folder(tmp_path/"only")] == ["train", "test"]


def test_what_save_to_disk_wrote(tmp_path):
    rows = Dataset.from_list(table(8)).cast_column("label", ClassLabel(names=["good", "bad"]))
    rows.save_to_disk(tmp_path/"one")
    DatasetDict(train=rows, dev=rows, test=rows).save_to_disk(tmp_path/"three")
    DatasetDict(train=rows, dev=rows, validation=rows).save_to_disk(tmp_path/"twice")
    assert [*read_folder(tmp_path/"one")] == ["train"] and sorted(read_folder(tmp_path/"three")) == ["test", "train", "validation"]
    found = understand(Settings(data=str(tmp_path/"three"))).settings
    assert found.labels == ("good", "bad")                                                  # the order of the data set itself
    assert (found.n_train, found.n_validation, found.n_test) == (8, 8, 8)
    assert "mean the same" in refusal(read_folder, tmp_path/"twice")
    (tmp_path/"one"/"data-00000-of-00001.arrow").write_bytes(b"x")
    assert "save the data set again" in refusal(read_folder, tmp_path/"one")


# ---- columns

@pytest.mark.parametrize("columns, kind, found", [
    (["text", "label"], "text", "text"), (["Text", "x"], "text", "Text"), ([" REVIEW ", "x"], "text", " REVIEW "), (["Sentence", "x"], "text", "Sentence"), (["x", "y"], "text", None),
    (["review", "content"], "text", None), (["text", "content"], "text", "text"), (["Text", "content"], "text", None), (["Class"], "label", "Class"), (["stars", "sentiment"], "label", None),
    (["label", "stars"], "label", "label"), (["texts"], "text", None), (["reviewer"], "text", None)])
def test_a_column_is_found_when_there_is_one_candidate(columns, kind, found): assert find_column(columns, kind) == found


def test_blanks_around_a_header_are_no_part_of_it(tmp_path):
    write(tmp_path/"a.csv", table(), header=[" Text ", "label "])
    found = understand(Settings(data=str(tmp_path/"a.csv")))
    assert (found.settings.text_column, found.settings.label_column) == ("Text", "label") and "texts in the column 'Text'" in found.line


def test_a_named_column_is_the_only_one(tmp_path):
    write(tmp_path/"a.csv", table(), header=["review", "label"])
    settings = Settings(data=str(tmp_path/"a.csv"))
    assert understand(settings, {"text_column"}).settings.text_column == "text"
    assert "no column 'remark': set text_column to one of review, label" in refusal(load_reviews, understand(replace(settings, text_column="remark")).settings)


# ---- classes

@pytest.mark.parametrize("labels, names", [
    (["bad", "good"], ["bad", "good"]), (["positive", "neutral", "negative"], ["negative", "neutral", "positive"]), (["pos", "neu", "neg"], ["neg", "neu", "pos"]),
    ([5, 4, 3, 2, 1], list("12345")), (["10", "9", "8"], ["8", "9", "10"]), ([1.0, 2.0, 5.0], ["1", "2", "5"]), (["3 stars", "1 star", "10 stars"], ["1 star", "3 stars", "10 stars"]),
    (["LABEL_1", "LABEL_0", "LABEL_2"], ["0", "1", "2"]), ([-1, 0, 1], ["-1", "0", "1"]), (["Good ", "good", "bad"], ["bad", "Good"]),
    (["one"], []), ([0.5, 1.5], []), (["a, b", "c"], []), ([["x"], ["y"]], []), ([str(i) for i in range(21)], []), ([str(i) for i in range(20)], [str(i) for i in range(20)])])
def test_words_that_come_again_and_again_are_classes(labels, names): assert [*find_classes(labels*50).values()] == names


def test_a_slip_is_no_class(tmp_path):
    "One row of eighty says goood: it is named by its place, and with skip it is left out"
    rows = table(80)
    rows[7]["label"] = "goood"
    path = write(tmp_path/"a.csv", rows)
    settings = Settings(data=str(path), n_train=60, n_validation=10, n_test=9)
    assert understand(settings).settings.labels == ("NEG", "POS")
    assert "is not one of NEG, POS: correct the row, or set labels=" in refusal(load_reviews, understand(settings).settings)
    skipping = understand(replace(settings, on_bad_rows="skip"))
    assert skipping.settings.labels == ("bad", "good") and [(row["row"], row["label"]) for row in skipping.skipped] == [(7, "goood")]
    assert "1 of 80 rows skipped, the first: label 'goood' is not one of bad, good" in skipping.line


@pytest.mark.filterwarnings("ignore:the labels are read by their order")
@pytest.mark.parametrize("labels, said", [(("neg", "pos"), "neg is NEG, pos is POS"), (("NEG", "POS"), ""), ((0, 1), "0 is NEG, 1 is POS"), (("Negative", "positive"), "Negative is NEG, positive is POS"), (("1", "2"), "1 is NEG, 2 is POS")])
def test_what_is_known_keeps_our_names_and_is_said(tmp_path, labels, said):
    found = understand(Settings(data=str(write(tmp_path/"a.csv", table(labels=labels))), n_train=40, n_validation=20, n_test=20))
    assert (found.settings.labels, found.line) == (("NEG", "POS"), said)
    reviews = load_reviews(found.settings)["train"]
    assert all(int(text.split()[-1]) % 2 == label for text, label in zip(reviews["text"], reviews["label"]))


def test_named_classes_are_the_only_ones(tmp_path):
    settings = Settings(data=str(write(tmp_path/"a.csv", table(labels=("bad", "so-so", "good")))), labels=("bad", "good"))
    assert understand(settings).settings.labels == ("bad", "good")
    assert "label 'so-so' is not one of bad, good" in refusal(load_reviews, understand(settings).settings)


# ---- sizes

@pytest.mark.parametrize("rows, named, sizes", [
    (dict(pile=3000), {}, {}), (dict(pile=80), {}, (64, 8, 8)), (dict(pile=10), {}, (8, 1, 1)), (dict(pile=3), {}, (1, 1, 1)), (dict(pile=2400), {}, (1920, 240, 240)),
    (dict(pile=900), dict(n_test=180), (640, 80, 180)), (dict(pile=900), dict(n_train=700, n_validation=100), (700, 100, 100)), (dict(pile=9000), dict(n_train=ALL), (7500, 500, 1000)),
    (dict(train=900, test=300), {}, (800, 100, 300)), (dict(train=1707, validation=245, test=488), {}, (1000, 245, 488)), (dict(train=50, validation=10, test=10), {}, (50, 10, 10)),
    (dict(train=5000, test=488), dict(n_train=ALL, n_test=100), (4500, 500, 100))])
def test_sizes_fit_the_file(rows, named, sizes):
    settings = Settings(**{"n_validation": 500} | named)
    fitted = replace(settings, **fit_sizes(rows, settings, set(named)))
    assert (fitted.n_train, fitted.n_validation, fitted.n_test) == (sizes or (1000, 500, 1000))
    assert all(getattr(fitted, name) == value for name, value in named.items() if value != ALL)


@pytest.mark.parametrize("rows, named, words", [
    (dict(pile=80), dict(n_train=79), "pile has 80 rows, but 79 for train are asked and others are needed, too: lower --n-train"),
    (dict(pile=2), {}, "pile has 2 rows, too few for training, validation and test: add rows")])
def test_numbers_that_do_not_fit_are_refused(rows, named, words): assert refusal(fit_sizes, rows, Settings(**named), set(named)) == words


def test_named_numbers_that_do_not_fit_are_refused(tmp_path):
    settings = Settings(data=str(write(tmp_path/"a.csv", table(80))), n_train=80, n_validation=8, n_test=8)
    assert "80 rows, but 8 for test + 80 for train + 8 for validation are asked: lower" in refusal(load_reviews, understand(settings).settings)


def test_the_corpus_and_what_fits_are_left_alone(tmp_path):
    for settings in (Settings(), Settings(n_train=5, n_validation=200), Settings(data=str(write(tmp_path/"a.csv", table(80, ("NEG", "POS")))), n_train=40, n_validation=20, n_test=20)):
        assert understand(settings) == (settings, "", ())
    assert named_settings(Settings(data="a.csv", n_validation=500, epochs=1)) == {"data", "epochs"}


# ---- rows that are skipped

def test_skipped_rows_are_drawn_by_nobody_and_the_others_keep_their_places(tmp_path):
    rows = table(40, ("NEG", "POS"))
    for place in (3, 17): rows[place]["text"] = " "
    rows[5]["label"] = "?"
    settings = Settings(data=str(write(tmp_path/"a.csv", rows)), n_train=25, n_validation=6, n_test=6)
    assert "row " in refusal(load_reviews, settings)
    found = understand(replace(settings, on_bad_rows="skip"))
    assert [row["row"] for row in found.skipped] == [3, 5, 17] and "3 of 40 rows skipped" in found.line
    reviews = load_reviews(found.settings)
    assert sorted(text for split in reviews.values() for text in split["text"]) == sorted(row["text"] for place, row in enumerate(rows) if place not in (3, 5, 17))
    assert "a.csv has 37 rows, but" in refusal(load_reviews, replace(found.settings, n_train=26))


def test_skipping_does_not_change_the_rows_of_a_clean_file(tmp_path):
    settings = Settings(data=str(write(tmp_path/"a.csv", table(40, ("NEG", "POS")))), n_train=20, n_validation=6, n_test=6)
    assert load_reviews(settings)["train"].to_list() == load_reviews(replace(settings, on_bad_rows="skip"))["train"].to_list()


def test_the_id_of_a_run_is_what_it_was():
    from sentiment_nbdev.study import relevant_settings
    assert "on_bad_rows" not in relevant_settings("lora", Settings()) and relevant_settings("lora", Settings(on_bad_rows="skip"))["on_bad_rows"] == "skip"


# ---- the commands

@pytest.fixture(scope="module")
def critic(tiny_encoder, tmp_path_factory):
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.saving import save_classifier, weights_sha256
    from sentiment_nbdev.tokenization import load_tokenizer
    chosen, folder = Settings(model=str(tiny_encoder), revision="", max_length=16, device="cpu", precision="fp32"), tmp_path_factory.mktemp("critic")/"model"
    model = load_encoder(chosen)
    save_classifier(model, load_tokenizer(chosen), folder, chosen, weights_sha256(model))
    return folder


def test_a_file_of_reviews_gets_to_a_model_without_a_setting(command, critic, tmp_path):
    "Five stars as text, semicolons, cp1252, 80 rows; the line on stderr stands in the record"
    stars = [f"{n} Stern{'e' * (n > 1)}" for n in range(1, 6)]
    write(tmp_path/"mine.csv", table(80, stars), ";", "cp1252", ["Review", "Stars"])
    code, out, err = command("train", "probe", "--model", critic, "--data", "mine.csv", "--max-length", 16, "--out", "mine")
    assert code == 0, err
    line = next(line for line in err.splitlines() if line.startswith("mine.csv: "))
    assert line == ("mine.csv: read with a semicolon between the cells and cp1252; texts in the column 'Review'; labels in the column 'Stars'; "
                    "the classes 1 Stern, 2 Sterne, 3 Sterne, 4 Sterne, 5 Sterne; rows: 64 for train, 8 for validation, 8 for test")
    assert err.count("is read as cp1252") == 1
    record = json.loads((tmp_path/"mine"/"record.json").read_text())
    assert record["understood"] == line.removeprefix("mine.csv: ") and record["settings"]["labels"] == stars and record["settings"]["n_train"] == 64
    code, out, err = command("evaluate", "mine")                                              # the card has it all
    assert code == 0 and out.splitlines()[0].split() == ["n", "8"], err
    code, out, err = command("predict", "mine", "--input", "mine.csv", "--output", "labelled.csv")
    assert code == 0 and (tmp_path/"labelled.csv").read_bytes().decode("cp1252").splitlines()[1].startswith("Ein schöner Film, Nummer 0;1 Stern;"), err


def test_skipped_rows_stand_in_a_file_beside_the_model(command, critic, tmp_path):
    rows = table(80)
    rows[4]["text"] = ""
    write(tmp_path/"mine.csv", rows)
    flags = ("train", "probe", "--model", critic, "--data", "mine.csv", "--max-length", 16, "--out", "mine")
    code, _, err = command(*flags)
    assert code == 2 or not (tmp_path/"mine-skipped.csv").exists()
    code, _, err = command(*flags, "--set", "on_bad_rows=skip")
    assert code == 0 and "Wrote 1 skipped rows to mine-skipped.csv" in err and "1 of 80 rows skipped" in err
    assert pd.read_csv(tmp_path/"mine-skipped.csv")[["part", "row", "label"]].values.tolist() == [["mine.csv", 4, "bad"]]
    assert command("predict", "mine", "a film")[0] == 0                                       # the folder is as ever


def test_flags_are_not_changed(command, critic, tmp_path):
    write(tmp_path/"mine.csv", table(80), header=["Review", "Stars"])
    flags = ("train", "probe", "--model", critic, "--data", "mine.csv", "--max-length", 16, "--out", "mine")
    for more, words in [(("--n-train", 1000), "1000 for train are asked"), (("--set", "text_column=text"), "no column 'text'"), (("--set", "labels=NEG,POS"), "is not one of NEG, POS"),
                        (("--set", "label_column=label"), "no column 'label'")]:
        code, _, err = command(*flags, *more)
        assert code == 2 and words in err.splitlines()[-1], err
    assert not (tmp_path/"mine").exists()


def test_all_rows(command, critic, tmp_path):
    write(tmp_path/"train.csv", table(60, ("neg", "pos"))), write(tmp_path/"test.csv", table(20, ("neg", "pos"), "another film {}"))
    code, _, err = command("train", "probe", "--model", critic, "--data", "./", "--n-train", "all", "--n-validation", 10, "--max-length", 16, "--out", "mine")
    assert code == 0 and "rows: 50 for train, 20 for test" in err, err


@pytest.mark.parametrize("name", ["ids.jsonl", "ids.json", "ids.jsonl.gz"])
def test_large_numbers_come_out_of_predict_as_they_went_in(command, critic, tmp_path, name):
    rows = [dict(id=2**53 + 1 + i, Review=f"a film {i}", more=dict(x=[1.5, None])) for i in range(5)]
    content = json.dumps(rows) if name == "ids.json" else "\n".join(map(json.dumps, rows))
    (tmp_path/name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    code, _, err = command("predict", critic, "--input", name, "--output", "out.jsonl")
    assert code == 0 and f"{name}: texts in the column 'Review'" in err, err
    written = [json.loads(line) for line in (tmp_path/"out.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in rows[0]} for row in written] == rows


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_with_answers_keeps_them_and_gets_new_ones(command, critic, tmp_path, ending):
    write(tmp_path/"a.csv", table(5))
    for source, target in (("a.csv", f"b.{ending}"), (f"b.{ending}", f"c.{ending}"), (f"c.{ending}", f"d.{ending}")):
        code, _, err = command("predict", critic, "--input", source, "--output", target)
        assert code == 0, err
    assert "c." in err and "has answers already: the new ones are in predicted_3, probability_3, error_3" in err
    columns = pq.read_schema(tmp_path/"d.parquet").names if ending == "parquet" else read_rows(tmp_path/f"d.{ending}").column_names
    assert columns == ["text", "label", *(f"{name}{n}" for n in ("", "_2", "_3") for name in ("predicted", "probability", "error"))]
    rows = [read_rows(tmp_path/f"{name}.{ending}") for name in "bd"]
    assert rows[0]["predicted"][:] == rows[1]["predicted"][:] == rows[1]["predicted_3"][:]


def test_blank_labels_do_not_hide_the_classes():
    assert [*find_classes(["joy"] * 49 + ["anger"] * 49 + [""] * 20).values()] == ["anger", "joy"]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_handful_of_rows_leaves_one_for_each_split(tmp_path, n):
    found = understand(Settings(data=str(write(tmp_path/"mine.csv", table(n, labels=("POS", "NEG"))))))
    assert (found.settings.n_train, found.settings.n_validation, found.settings.n_test) == (n - 2, 1, 1)


def test_suspects_understand_a_file_and_leave_out_what_is_to_be_left_out(command, tmp_path):
    pytest.importorskip("cleanlab")
    rows = [{"sentence": f"{text} number {n}", "class": mood} for n in range(12) for mood, text in (("joy", "a lovely film"), ("anger", "a tedious mess"))]
    write(tmp_path/"moods.csv", [*rows, {"sentence": " ", "class": "joy"}])
    code, _, said = command("suspects", "--data", "moods.csv", "--set", "on_bad_rows=skip")
    assert code == 0 and "texts in the column 'sentence'" in said and "the classes anger, joy" in said and "1 of 25 rows skipped" in said
    assert "for train" not in said
