"""Files and texts as people really have them: no traceback, no row lost, no row moved."""
import csv, gzip, json, shutil, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings as trials, strategies as st
from sentiment_nbdev.answers import predict_file, write_rows
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.files import InputError
from sentiment_nbdev.readers import read_rows

FEW = trials(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WORDS = st.lists(st.sampled_from(["lovely", "<br />", "\n", "\r\n", "\x00", "\ufeff", '"', "'", ",", "\t", "NA", "null", "1e9", "🎬", "فيلم", "סרט", "é", "  "]), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def critic(tiny_encoder, tmp_path_factory):
    "A tiny classifier and the folder it is saved in"
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.saving import save_classifier, weights_sha256
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    chosen, folder = Settings(model=str(tiny_encoder), revision="", max_length=16, device="cpu", precision="fp32"), tmp_path_factory.mktemp("critic")/"model"
    model = load_encoder(chosen)
    save_classifier(model, load_tokenizer(chosen), folder, chosen, weights_sha256(model))
    return Classifier.load(folder), folder


def is_text(text): return bool(text.strip())


def assert_answered(rows, texts):
    "One answer per text, in place: a label, or the reason why there is none"
    assert len(rows) == len(texts)
    for row, text in zip(rows, texts):
        assert bool(row["predicted"]) == is_text(text) and bool(row["error"]) != is_text(text), (row, text)
        if is_text(text): assert 0.5 <= row["probability"] <= 1


@FEW
@given(texts=st.lists(TEXT | WORDS, min_size=1, max_size=12))
def test_each_row_of_a_csv_is_answered_in_its_place(critic, texts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"mine.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *enumerate(texts)])
        try: rows = predict_file(critic[0], path)
        except InputError: return                         # refused as a whole, with a reason: fine, as long as no row is lost in silence
        assert rows["id"][:] == [str(i) for i in range(len(texts))]
        assert_answered(rows, rows["text"][:])
        out = write_rows(rows, Path(folder)/"out.jsonl")
        assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == rows["id"][:]


@FEW
@given(texts=st.lists(TEXT | WORDS, min_size=1, max_size=12))
def test_each_row_of_a_jsonl_is_answered_in_its_place(critic, texts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"mine.jsonl"
        path.write_text("".join(json.dumps(dict(id=i, text=text)) + "\n" for i, text in enumerate(texts)), encoding="utf-8")
        rows = predict_file(critic[0], path, cache=f"{folder}/cache")
        assert rows["id"][:] == list(range(len(texts))) and rows["text"][:] == texts
        assert_answered(rows, texts)


@pytest.mark.filterwarnings("ignore:mine.* is read as cp1252")
@FEW
@given(content=st.binary(max_size=200), kind=st.sampled_from(["csv", "jsonl", "parquet", "txt"]))
def test_any_bytes_end_in_answers_or_one_line(critic, content, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/f"mine.{kind}"
        path.write_bytes(content)
        try: rows = predict_file(critic[0], path, cache=f"{folder}/cache")
        except InputError as e: assert len(str(e).splitlines()) == 1
        else: assert_answered(rows, [text if isinstance(text, str) else "" for text in rows["text"][:]])


@FEW
@given(texts=st.lists(TEXT.filter(is_text) | WORDS.filter(is_text), min_size=1, max_size=6))
def test_any_text_gets_one_of_the_labels(critic, texts):
    assert {p.label for p in critic[0].predict(texts)} <= {"NEG", "POS"}


def test_a_cache_never_answers_for_another_file(critic, tmp_path):
    for name, text in (("a", "one film"), ("b", "")):
        (tmp_path/f"{name}.csv").write_text(f'text\n"{text}"\n')
        rows = predict_file(critic[0], tmp_path/f"{name}.csv", cache=str(tmp_path/"cache"))
        assert rows["text"][:] == [text] and bool(rows["error"][0]) == (not text)


ODD = dict(
    bom=("x.csv", "\ufefftext\na joy\n".encode(), 1),
    utf16=("x.csv", "text\na joy\n".encode("utf-16"), 1),
    greek=("x.csv", "text\nωραία\n".encode("cp1253"), "UTF-8"),
    empty=("x.csv", b"", "it is empty"),
    header_only=("x.csv", b"text,label\n", "no rows"),
    ragged=("x.csv", b"text,label\na joy,POS\nso, so,NEG\n", "expected 2 cells in line 3, saw 3"),
    one_word=("x.csv", b"text\n" + b"lovely" * 170_000 + b"\n", 1),
    long_cell=("x.csv", b'text\n"' + b"a lovely film " * 75_000 + b'"\n', 1),
    line_breaks=("x.csv", b"text\na joy<br /><br />from start to end\n", 1),
    emoji=("x.jsonl", json.dumps(dict(text="🎬👍🏽")).encode(), 1),
    right_to_left=("x.jsonl", json.dumps(dict(text="فيلم جميل")).encode(), 1),
    broken_line=("x.jsonl", b'{"text": "a joy"}\n{"text": \n', "cannot read"),
    number=("x.jsonl", b'{"text": 7}\n', 1),
    missing=("x.jsonl", b'{"text": "a joy"}\n{"text": null}\n', 2),
    packed=("x.csv.gz", gzip.compress(b"text\na joy\n", mtime=0), 1),
    half_packed=("x.csv.gz", gzip.compress(b"text\na joy\n", mtime=0)[:-9], "end-of-stream marker"),
    not_packed=("x.csv.gz", b"text\na joy\n", "Not a gzipped file"),
    array=("x.json", b'[{"text": "a joy"},\n {"text": "a bore"}]', 2),
    sheet=("x.xlsx", b"PK", "save the sheet as CSV"),
    no_parquet=("x.parquet", b"PAR1 half a file", "cannot read"))


@pytest.mark.parametrize("kind", ODD)
def test_odd_files(kind, command, critic, tmp_path):
    "A number of answered rows, or words of the one line that refuses"
    name, content, expected = ODD[kind]
    home = tmp_path/"with a space, ünïcode"
    home.mkdir()
    (home/name).write_bytes(content)
    code, out, err = command("predict", critic[1], "--input", home/name, "--output", home/"out.csv")
    assert "Traceback" not in err
    if isinstance(expected, str):
        assert code == 2 and len(err.splitlines()) == 1 and expected in err, err
        assert [path.name for path in home.iterdir()] == [name]
    else:
        assert code == 0, err
        assert len(read_rows(home/"out.csv")) == expected


def test_the_named_file_is_labelled_and_no_other(command, critic, tmp_path):
    for name in ("reviews[1]", "reviews1"): (tmp_path/f"{name}.csv").write_text(f"text\n{name}\n")
    code, _, err = command("predict", critic[1], "--input", "reviews[1].csv", "--output", "out.csv")
    assert code == 0, err
    assert pd.read_csv("out.csv")["text"].tolist() == ["reviews[1]"]


def test_parquet_with_numbers_for_texts(critic, tmp_path):
    pd.DataFrame(dict(text=[1, 2])).to_parquet(tmp_path/"x.parquet")
    assert predict_file(critic[0], tmp_path/"x.parquet")["error"][:] == ["the text is 1, not a string", "the text is 2, not a string"]


LABELS = dict(
    mixed_types=("".join(json.dumps(dict(text=f"film {i}", label=(1, "NEG")[i % 2])) + "\n" for i in range(24)), ""),
    one_row_class=("".join(json.dumps(dict(text=f"film {i}", label="POS")) + "\n" for i in range(11)) + '{"text": "bad", "label": "NEG"}\n', ""),
    fraction=('{"text": "a", "label": 0.5}\n{"text": "b", "label": 1}\n' * 4, "label 0.5"))


@pytest.mark.parametrize("kind", LABELS)
def test_odd_labels(kind, command, critic, tmp_path):
    content, words = LABELS[kind]
    (tmp_path/"x.jsonl").write_text(content)
    code, out, err = command("train", "probe", "--model", critic[1], "--data", "x.jsonl", "--n-train", 4, "--n-validation", 2, "--n-test", 2, "--max-length", 16)
    assert "Traceback" not in err and code in (0, 2)
    if words: assert code == 2 and words in err, err


def test_names_in_files_are_never_paths(command, critic, tmp_path):
    "A label that looks like a path stays a label"
    rows = "".join(json.dumps(dict(text=f"film {i}", label=("../../evil", "good")[i % 2])) + "\n" for i in range(24))
    (tmp_path/"x.jsonl").write_text(rows)
    code, _, err = command("train", "probe", "--model", critic[1], "--data", "x.jsonl", "--set", "labels=../../evil,good", "--n-train", 12, "--n-validation", 6,
                           "--n-test", 6, "--max-length", 16, "--out", "mine")
    assert code == 0, err
    assert not list(tmp_path.parent.rglob("evil*"))


def test_standard_input_answers_every_line(process, critic):
    run = process("predict", critic[1], "-", input="one film\n\nanother film\n")
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert run.returncode == 0 and [line[2] for line in lines] == ["one film", "", "another film"] and lines[1][0] == "error: the text is empty"
    assert "1 of 3 rows have no label" in run.stderr


NO_PATHS = dict(nothing=None, number=5, fraction=1.5, bytes=b"reviews.csv", list=["reviews.csv"], table={})


@pytest.mark.parametrize("kind", NO_PATHS)
def test_what_is_no_path_is_one_line(kind, critic, tmp_path, monkeypatch):
    "Wherever a person names a file or a folder"
    from sentiment_nbdev.data import load_reviews
    from sentiment_nbdev.ini import load_settings, write_settings
    from sentiment_nbdev.lora import load_adapter
    from sentiment_nbdev.readers import read_rows
    from sentiment_nbdev.runs import train_and_save
    from sentiment_nbdev.saving import model_card, push
    from sentiment_nbdev.settings import Settings
    monkeypatch.chdir(tmp_path)
    value = NO_PATHS[kind]
    calls = [Classifier.load, load_adapter, read_rows, model_card, lambda path: predict_file(critic[0], path), lambda path: push(path, "me/mine"),
             lambda path: write_settings(Settings(), path), lambda path: train_and_save("probe", Settings(), path)]
    if kind != "nothing": calls.append(lambda path: load_settings(file=path))             # None asks for ./settings.ini
    for call in calls:
        with pytest.raises(InputError, match="is no name of a file or folder") as raised: call(value)
        assert "\n" not in str(raised.value)
    if kind != "number":                                                                    # a number may be the name of a folder, as in --data 5
        with pytest.raises(InputError, match="data is .*: it must be a text"): load_reviews(Settings(data=value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("texts, words", [(None, "is no list of texts"), (5, "is no list of texts"), ([None], "text 0 is None"), ([5], "text 0 is 5"), (b"a joy", "is no list of texts"),
                                          (dict(text="a joy"), "is no list of texts"), (pd.DataFrame(dict(review=["a joy"])), "is no list of texts"), ("a joy", "put it into a list")])
def test_what_is_no_list_of_texts_is_one_line(texts, words, critic):
    "A table would give the names of its columns, bytes would give numbers"
    with pytest.raises(InputError, match=words) as raised: critic[0].predict(texts)
    assert "\n" not in str(raised.value)


def test_a_setting_that_nobody_knows_is_named(critic):
    from dataclasses import replace
    from sentiment_nbdev.settings import Settings, change_settings, parse_value
    for make in (lambda: Settings(epoch=1), lambda: replace(Settings(), epoch=1), lambda: change_settings(Settings(), epoch=1), lambda: parse_value("epoch", "1")):
        with pytest.raises(InputError, match=r"^no setting called epoch: did you mean epochs\?$"): make()
    with pytest.raises(InputError, match="no setting called zebra: choose from data, "): Settings(zebra=1)
    with pytest.raises(InputError, match="epochs is None: it must be a whole number"): Settings(epochs=None)
    with pytest.raises(InputError, match="device is 'gpu': choose one of"): Classifier.load(critic[1], device="gpu")


@pytest.mark.parametrize("value", [None, 5, "imdb", {}])
def test_what_is_no_settings_is_one_line(value, critic):
    from sentiment_nbdev.comparison import compare
    from sentiment_nbdev.data import load_reviews
    from sentiment_nbdev.lora import add_lora
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.training import fine_tune
    from sentiment_nbdev.prediction import score_classifier
    from sentiment_nbdev.runs import train_and_save
    from sentiment_nbdev.settings import change_settings, choose_device
    from sentiment_nbdev.tokenization import load_tokenizer
    for call in (load_reviews, load_tokenizer, choose_device, change_settings, lambda settings: score_classifier(critic[0], settings), lambda settings: add_lora(critic[0].model, settings),
                 lambda settings: train_and_save("lora", settings, "mine"), load_encoder, lambda settings: fine_tune(critic[0].model, {}, critic[0].tokenizer, settings),
                 lambda settings: compare(settings, "mine")):
        with pytest.raises(InputError, match="is given where settings are expected: write Settings"): call(value)


def test_texts_and_methods_are_refused_alike_everywhere(critic):
    from sentiment_nbdev.runs import train_and_save
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import tokenize
    from sentiment_nbdev.training import fine_tune
    for texts in (None, 5, b"a joy", dict(text="a joy"), pd.DataFrame(dict(review=["a joy"]))):
        with pytest.raises(InputError, match=r"is no list of texts: write \[text\]$"): tokenize(texts, critic[0].tokenizer)
    with pytest.raises(InputError, match="one of the texts is no text"): tokenize(["a joy", None], critic[0].tokenizer)
    for call in (lambda: train_and_save("svm", Settings(), "mine"), lambda: fine_tune(critic[0].model, {}, critic[0].tokenizer, Settings(), "svm")):
        with pytest.raises(InputError, match="^unknown method 'svm': choose from "): call()


@pytest.mark.parametrize("values, words", [
    (dict(labels=["", "a"]), "name two or more different classes"), (dict(labels=[None, "a"]), "it must be a list of names"), (dict(labels=[["a"], ["b"]]), "it must be a list of names"),
    (dict(labels=b"ab"), "it must be a list of names"), (dict(n_train=np.array([1, 2])), "it must be a whole number"), (dict(lr_full=np.array([1e-4, 1e-5])), "it must be a number"),
    (dict(epochs="x" * 5000), "^epochs is 'x{59}: it must be a whole number$"), (dict(N_TRAIN=8), "did you mean n_train")])
def test_values_that_are_no_settings_are_one_short_line(values, words):
    from sentiment_nbdev.settings import Settings
    with pytest.raises(InputError, match=words) as raised: Settings(**values)
    assert "\n" not in str(raised.value)


def test_a_settings_file_is_named_with_its_fault(tmp_path, monkeypatch):
    from sentiment_nbdev.ini import load_settings
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").write_text("[sentiment]\nepochs = x\n")
    with pytest.raises(InputError, match="^settings.ini: epochs is 'x': it must be a whole number$"): load_settings()
    with pytest.raises(InputError, match="^unknown profile 'zebra'"): load_settings("zebra")
    (tmp_path/"settings.ini").write_text("epochs = 1\n")
    with pytest.raises(InputError, match="correct it, or name another with --settings$"): load_settings()
    (tmp_path/"settings.ini").unlink()
    (tmp_path/"settings.ini").symlink_to("nowhere")
    with pytest.raises(InputError, match="no settings file settings.ini"): load_settings()


def test_further_test_data_that_cannot_be_told_apart_or_read(tiny_encoder, tmp_path):
    "A record names them by their last part: one would stand for the other"
    from sentiment_nbdev.runs import prepare_rows
    from sentiment_nbdev.settings import Settings
    for place in ("a", "b"):
        (tmp_path/place).mkdir()
        (tmp_path/place/"more.csv").write_text("text,label\n" + "".join(f"{place} {i},{('NEG', 'POS')[i % 2]}\n" for i in range(20)))
    chosen = dict(model=str(tiny_encoder), revision="", n_train=16, n_validation=8, n_test=8, max_length=16)
    with pytest.raises(InputError, match="would call by one name"): prepare_rows(Settings(**chosen, also_test=[str(tmp_path/"a/more.csv"), str(tmp_path/"b/more.csv")]))
    with pytest.raises(InputError, match="^also_test: no file or folder gone.csv"): prepare_rows(Settings(**chosen, also_test=["gone.csv"]))


ENCODERS = dict(
    config_number=("config.json", "7", "cannot read .*config.json"), config_null=("config.json", "null", "cannot read .*config.json"), config_deep=("config.json", "[" * 100_000, "cannot read .*config.json"),
    size=("config.json", dict(hidden_size="big"), "cannot read .*config.json"), heads=("config.json", dict(num_attention_heads=0), "cannot read"), act=("config.json", dict(hidden_act="zebra"), "cannot read the encoder"),
    quantised=("config.json", dict(quantization_config=dict(quant_method="bitsandbytes", load_in_8bit=True)), "cannot read the encoder"), fewer_layers=("config.json", dict(num_hidden_layers=1), "weights of more layers"),
    tokenizer_empty=("tokenizer.json", "{}", "cannot read the tokenizer"), tokenizer_list=("tokenizer_config.json", "[]", "cannot read the tokenizer"), tokenizer_class=("tokenizer_config.json", dict(tokenizer_class=5), "cannot read the tokenizer"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_damaged_encoder_is_one_line(kind, tiny_encoder, tmp_path):
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    name, content, words = ENCODERS[kind]
    here = shutil.copytree(tiny_encoder, tmp_path/"tiny")
    if isinstance(content, dict): content = json.dumps(json.loads((here/name).read_text()) | content)
    (here/name).write_text(content)
    chosen = Settings(model=str(here), revision="", max_length=16, device="cpu")
    with pytest.raises(InputError, match=words) as raised:
        load_tokenizer(chosen)
        load_encoder(chosen)
    assert "\n" not in str(raised.value)


def change_weights(path, change):
    from safetensors.torch import load_file, save_file
    tensors = load_file(path)
    save_file({name: value.clone().contiguous() for name, value in change(tensors).items()}, path, metadata=dict(format="pt"))


def spoil(tensors):
    "The last weight is no number any more"
    *_, name = tensors
    return tensors | {name: tensors[name] * float("nan")}


def without(part): return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def test_an_encoder_whose_weights_are_no_numbers(tiny_encoder, tmp_path):
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.settings import Settings
    here = shutil.copytree(tiny_encoder, tmp_path/"tiny")
    change_weights(here/"model.safetensors", spoil)
    with pytest.raises(InputError, match="are not finite"): load_encoder(Settings(model=str(here), revision="", device="cpu"))
    for name, words in (("", "model is empty"), (str(here/"config.json"), "no model folder")):
        with pytest.raises(InputError, match=words): load_encoder(Settings(model=name, revision=""))


def edit_json(name, **values):
    def change(folder):
        payload = json.loads((folder/name).read_text())
        (folder/name).write_text(json.dumps(payload | values))
    return change


def edit_card(**values):
    def change(folder):
        payload = json.loads((folder/"sentiment.json").read_text())
        (folder/"sentiment.json").write_text(json.dumps(payload | dict(settings=payload["settings"] | values)))
    return change


def weights(name, edit): return lambda folder: change_weights(folder/name, edit)


def moved(tensors): return {name: value + 1 if value.is_floating_point() else value for name, value in tensors.items()}


def both_labels(folder):
    edit_card(labels=["POS", "NEG"])(folder)
    edit_json("config.json", id2label={"0": "POS", "1": "NEG"})(folder)


WHOLE = dict(other_training=(weights("model.safetensors", moved), "saved together"), both_swapped=(both_labels, "saved together"), no_head=(weights("model.safetensors", without("classifier")), "missing: classifier"), no_layer=(weights("model.safetensors", without("layer.1")), "would be random"),
             nan=(weights("model.safetensors", spoil), "are not finite"), more_layers=(edit_json("config.json", num_hidden_layers=3), "would be random"), fewer_layers=(edit_json("config.json", num_hidden_layers=1), "weights of more layers"),
             other_type=(edit_json("config.json", model_type="gpt2"), "cannot read|would be random|other shapes"), swapped=(edit_json("config.json", id2label={"0": "POS", "1": "NEG"}), "do not agree on the classes"),
             card_swapped=(edit_card(labels=["POS", "NEG"]), "do not agree on the classes"), pooled=(edit_card(pooling="mean"), "do not agree on pooling"), regression=(edit_json("config.json", problem_type="regression"), "trained for regression"),
             architecture=(edit_json("config.json", architectures=5), "without a trained classification head"), empty_card=(lambda folder: (folder/"sentiment.json").write_text('{"settings": {}}'), "does not say labels, max_length"),
             seen=(lambda folder: (folder/"seen_texts.json").write_text('{"sha256_64": "YWJj"}'), "not a list of fingerprints"))
ADAPTER = dict(other_training=(weights("adapter_model.safetensors", moved), "saved together"), swapped=(edit_card(labels=["POS", "NEG"]), "saved together"),
               no_layer=(weights("adapter_model.safetensors", without("layer.1")), "not those that its adapter_config.json"), nan=(weights("adapter_model.safetensors", spoil), "are not finite"),
               extra=(weights("adapter_model.safetensors", lambda tensors: tensors | {"zebra": next(iter(tensors.values()))}), "not those that its"), shape=(weights("adapter_model.safetensors", lambda tensors: {name: value[:-1] for name, value in tensors.items()}), "not those that its"),
               empty=(lambda folder: (folder/"adapter_config.json").write_text("{}"), "adapter_config.json is not the config of a LoRA adapter"), kind=(edit_json("adapter_config.json", peft_type="IA3"), "is not the config of a LoRA adapter"),
               rank=(edit_json("adapter_config.json", r=8), "do not agree on r:"), alpha=(edit_json("adapter_config.json", lora_alpha=999), "do not agree on lora_alpha"), targets=(edit_json("adapter_config.json", target_modules=["query"]), "do not agree on target_modules"),
               task=(edit_json("adapter_config.json", task_type="CAUSAL_LM"), "do not agree on task_type"), scaling=(edit_json("adapter_config.json", use_rslora=True), "do not agree on use_rslora"), pooled=(edit_card(pooling="mean"), "do not agree on pooling"),
               dora=(edit_json("adapter_config.json", use_dora=True), "not those that its"), no_print=(edit_json("sentiment.json", base_sha256=None), "does not say which encoder"))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_whose_parts_do_not_fit_never_answers(kind, critic, tmp_path):
    change, words = WHOLE[kind]
    here = shutil.copytree(critic[1], tmp_path/"model")
    change(here)
    with pytest.raises(InputError, match=words) as raised: Classifier.load(here)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def adapter(tiny_encoder, tmp_path_factory):
    "A tiny adapter and where its encoder is"
    from sentiment_nbdev.lora import add_lora
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.saving import save_adapter, weights_sha256
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    chosen, folder = Settings(model=str(tiny_encoder), revision="", max_length=16, device="cpu", precision="fp32"), tmp_path_factory.mktemp("adapter")/"lora"
    encoder = load_encoder(chosen)
    sha256 = weights_sha256(encoder)
    save_adapter(add_lora(encoder, chosen), folder, chosen, sha256, load_tokenizer(chosen))
    return folder


@pytest.mark.parametrize("kind", ADAPTER)
def test_an_adapter_whose_parts_do_not_fit_never_answers(kind, adapter, tiny_encoder, command, tmp_path):
    change, words = ADAPTER[kind]
    here = shutil.copytree(adapter, tmp_path/"adapter")
    assert Classifier.load(here, base=str(tiny_encoder)).predict(["a joy"])
    change(here)
    with pytest.raises(InputError, match=words) as raised: Classifier.load(here, base=str(tiny_encoder))
    assert "\n" not in str(raised.value)
    assert command("merge", "adapter", "--base", tiny_encoder, "--out", "merged")[:2] == (2, "") and not (tmp_path/"merged").exists()


def test_logits_that_are_no_numbers_are_no_answer(critic, monkeypatch):
    from sentiment_nbdev import prediction
    monkeypatch.setattr(prediction, "predict_logits", lambda *_: np.array([[0.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(InputError, match="no finite numbers for text 1"): critic[0].predict(["one", "two"])


@pytest.mark.slow
def test_a_million_rows_in_constant_memory(process, critic, tmp_path):
    import resource
    with (tmp_path/"big.csv").open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{i},{'' if i % 1000 == 7 else f'a lovely film number {i % 997}'}\n" for i in range(1_000_000))
    start = time.monotonic()
    run = process("predict", critic[1], "--input", "big.csv", "--output", "out.csv")
    seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{1e6 / seconds:,.0f} rows per second, peak {peak / 1e3:,.0f} MB")    # pytest -rP shows it
    assert run.returncode == 0 and "1000 of 1000000 rows have no label" in run.stderr
    with (tmp_path/"out.csv").open() as file:
        next(file)
        for i, line in enumerate(file): assert line.startswith(f"{i},")
    assert i == 999_999
    assert peak < 1.5e6    # kB
