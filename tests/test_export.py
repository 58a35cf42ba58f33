"""A model as an ONNX file: the same answers for every kind of encoder, the price of eight bits, and one line for what cannot be. Needs the extra `export`."""
import json, shutil, sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest, torch
from sentiment_nbdev.data import load_reviews
from sentiment_nbdev.files import InputError
from sentiment_nbdev.lora import add_lora
from sentiment_nbdev.models import load_encoder
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.saving import save_adapter, save_classifier, weights_sha256
from sentiment_nbdev.tokenization import load_tokenizer
from test_encoders import KINDS, checkpoint

pytest.importorskip("onnxscript")
from sentiment_nbdev.export import OnnxClassifier, compare_outputs, export_model, load_classifier, open_session, plain_classifier, quantize

TEXTS = ["a", "a lovely, lovely film", "two dull hours " * 30, "not bad, not bad at all", "dull"]


def refused(result, *parts):
    code, out, err = result
    assert (code, out) == (2, "") and err.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in err, (code, out, err)
    for part in parts: assert part in err, err


def critic(folder, kind="bert", **changes):
    "A tiny classifier of random weights that gives both labels equally often, with one weight in each wide layer that is far larger than the others"
    settings = replace(checkpoint(kind, folder/"encoder"), n_validation=100, n_test=50, **changes)
    model, tokenizer = load_encoder(settings), load_tokenizer(settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2: weight.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
            if name.endswith("intermediate.dense.weight"): weight[0, 0] = 60
    classifier = Classifier(model.eval(), tokenizer, settings)
    logits = classifier.logits(load_reviews(settings)["validation"]["text"][:])
    heads = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 2]
    with torch.no_grad(): heads[-1].bias[0] += float(np.median(logits[:, 1] - logits[:, 0]))
    return save_classifier(model, tokenizer, folder/"critic", settings, weights_sha256(model)), settings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory): return critic(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")/"onnx"
    export_model(plain_classifier(tiny[0]), tiny[0], folder)
    return folder


@pytest.mark.parametrize("kind, pooling", [*((kind, "cls") for kind in KINDS if kind != "longformer"), ("bert", "mean"), ("modernbert", "mean"), ("mpnet", "mean")])
def test_every_kind_of_encoder_gives_the_same_logits(kind, pooling, tmp_path):
    "Short and long texts, alone and beside others; in blocks of eight bits it is nearly the same"
    folder, settings = critic(tmp_path, kind, pooling=pooling)
    before = Classifier.load(folder, device="cpu").logits(TEXTS)
    rows = load_reviews(settings)["validation"]
    table = export_model(plain_classifier(folder), folder, tmp_path/"fp32", rows)
    after = load_classifier(tmp_path/"fp32")
    assert isinstance(after, OnnxClassifier) and table.loc["onnxruntime", "agreement"] == 1
    np.testing.assert_allclose(after.logits(TEXTS), before, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([after.logits([text]) for text in TEXTS]), before, atol=1e-4)
    assert all(axis == ["batch", "length"] for axis in [i.shape for i in after.model.get_inputs()])
    assert [o.name for o in after.model.get_outputs()] == ["logits"]
    small = quantize(tmp_path/"fp32/model.onnx", tmp_path/"small.onnx", "block")
    block = compare_outputs(dict(fp32=after, block=replace(after, model=open_session(small))), rows).loc["block"]
    assert 0 < block["difference"] < 0.2 and small.stat().st_size < 0.45 * after.size


def test_an_encoder_that_cannot_be_written_down_is_refused_in_one_line(command, tmp_path):
    folder, _ = critic(tmp_path, "longformer")
    refused(command("export", folder, "--out", "out"), "a longformer cannot be exported", "use it in PyTorch")
    assert not (tmp_path/"out").exists()


def test_what_the_folder_holds(tiny, exported):
    source, settings = tiny
    card, config = (json.loads((exported/name).read_text()) for name in ("sentiment.json", "config.json"))
    assert card["kind"] == "onnx" and card["export"]["precision"] == "fp32" and set(card["came_from"]["sha256"]) == {"model.safetensors"}
    assert config["architectures"] == ["BertForSequenceClassification"] and config["id2label"] == {"0": "NEG", "1": "POS"}
    for path in exported.iterdir():
        content = path.read_bytes()
        assert b"site-packages" not in content and str(source.parent).encode() not in content, path.name
    loaded = OnnxClassifier.load(exported)
    assert (loaded.tokenizer.model_max_length, loaded.tokenizer.truncation_side) == (settings.max_length, "left")


@pytest.mark.parametrize("side", ["right", "middle"])
def test_the_side_that_is_cut_comes_along(side, tmp_path):
    folder, _ = critic(tmp_path, truncation_side=side)
    export_model(plain_classifier(folder), folder, tmp_path/"onnx")
    texts = ["dull " * 9 + "a lovely, lovely film " * 9 + "bad " * 9]
    np.testing.assert_allclose(load_classifier(tmp_path/"onnx").logits(texts), Classifier.load(folder, device="cpu").logits(texts), atol=1e-4)


def test_an_adapter_is_merged_first(tmp_path):
    settings = checkpoint("bert", tmp_path/"encoder")
    encoder = load_encoder(settings)
    sha256, model = weights_sha256(encoder), add_lora(encoder, settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(weight, std=0.5)
    folder = save_adapter(model, tmp_path/"adapter", settings, sha256, load_tokenizer(settings))
    plain = plain_classifier(folder, settings.model)
    assert not any("lora" in name for name, _ in plain.model.named_parameters())
    export_model(plain, folder, tmp_path/"onnx")
    np.testing.assert_allclose(load_classifier(tmp_path/"onnx").logits(TEXTS), Classifier.load(folder, base=settings.model).logits(TEXTS), atol=1e-4)


def test_the_command_says_what_changed_and_the_other_commands_take_the_folder(tiny, command, tmp_path):
    source, _ = tiny
    code, out, err = command("export", source, "--out", "onnx")
    assert code == 0 and "100 validation rows" in out and out.split("\n")[2].split()[2] == "100.00%", (out, err)
    card = json.loads((tmp_path/"onnx/sentiment.json").read_text())["export"]
    assert card["rows"] == dict(data="corpus", split="validation", n=100) and card["table"]["onnxruntime"]["agreement"] == 1
    for words in (("predict", "a joy", "a bore"), ("evaluate",)):
        assert command(words[0], "onnx", *words[1:])[:2] == command(words[0], source, *words[1:])[:2]
    assert command("evaluate", "onnx", "--errors", "mistakes.csv")[0] == 0
    code, out, err = command("export", source, "--out", "onnx", "--speed")                  # what is ours is replaced
    assert code == 0 and "rows_per_second" in out


def test_eight_bits_at_a_price(tiny, command, tmp_path):
    "One scale per matrix is ruined by one large weight, and refused; finer scales are not"
    source, _ = tiny
    refused(command("export", source, "--int8", "--recipes", "tensor", "--out", "int8"), "too rarely (tensor ", "at least 99.00%", "--min-agreement")
    assert not [path for path in tmp_path.iterdir() if path.name != ".locks"]
    code, out, err = command("export", source, "--int8", "--min-agreement", "0.9", "--out", "int8")
    table = pd.DataFrame([line.split() for line in out.split("\n")[1:7]]).set_index(0)
    assert code == 0 and list(table.index) == ["PyTorch", "onnxruntime", "tensor", "channel", "narrow", "block"], (out, err)
    card = json.loads((tmp_path/"int8/sentiment.json").read_text())["export"]
    numbers = pd.DataFrame(card["table"]).T
    assert card["precision"] == f"int8 ({card['kept']})" and numbers.loc[card["kept"], "agreement"] >= 0.9 > numbers.loc["tensor", "agreement"]
    assert (tmp_path/"int8/model.onnx").stat().st_size == pytest.approx(1e6 * numbers.loc[card["kept"], "MB"], abs=1)
    rows = load_reviews(plain_classifier(source).settings)["validation"]
    again = compare_outputs(dict(PyTorch=Classifier.load(source, device="cpu"), kept=load_classifier("int8")), rows)
    assert again.loc["kept", "agreement"] == pytest.approx(numbers.loc[card["kept"], "agreement"], abs=1e-6)


def test_without_its_data_a_model_is_exported_and_the_rest_is_said(tmp_path, command):
    folder, _ = critic(tmp_path)
    card = json.loads((folder/"sentiment.json").read_text())
    card["settings"]["data"] = "./gone.csv"
    (folder/"sentiment.json").write_text(json.dumps(card))
    refused(command("export", folder, "--int8", "--out", "int8"), "none can be read: name some with --data")
    assert not (tmp_path/"int8").exists()
    code, out, err = command("export", folder, "--out", "onnx")
    assert (code, out) == (0, "") and "warning: not compared on rows of its data" in err and "gone.csv" in err
    assert json.loads((tmp_path/"onnx/sentiment.json").read_text())["export"]["table"] == {}
    pd.DataFrame(dict(text=["a joy", "a bore"] * 20, label=["POS", "NEG"] * 20)).to_csv("mine.csv", index=False)
    code, out, err = command("export", folder, "--data", "mine.csv", "--out", "onnx")
    assert code == 0 and "40 test rows" in out, err
    assert json.loads((tmp_path/"onnx/sentiment.json").read_text())["export"]["rows"] == dict(data="./mine.csv", split="test", n=40)


@pytest.mark.parametrize("arguments, words", [
    (["--recipes", "block"], "belong to --int8"), (["--min-agreement", "0.9"], "belong to --int8"), (["--int8", "--min-agreement", "1.5"], "less than or equal to 1"),
    (["--int8", "--min-agreement", "most"], "valid number"), (["--int8", "--recipes", "luck"], "recipe 'luck' is not known"), (["--data", "nowhere.csv"], "no file or folder nowhere.csv"),
    (["--set", "epochs=3"], "only settings of the rows"), (["--out", "."], "the folder you are in"), (["--base", "elsewhere"], "needs no other encoder")])
def test_a_wrong_flag_is_one_line_and_leaves_nothing(arguments, words, tiny, command, tmp_path):
    refused(command("export", tiny[0], *arguments), words)
    assert not (tmp_path/"runs").exists()


def test_a_wrong_folder_is_one_line(tiny, exported, command, tmp_path):
    source, settings = tiny
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine/notes.txt").write_text("mine")
    for arguments, words in (((("nowhere",), "no folder nowhere")), ((settings.model,), "without a trained classification head"), ((exported,), "was exported for onnxruntime"),
                             ((source, "--out", source), "would be replaced"), ((source, "--out", "mine"), "other files in it")):
        refused(command("export", *arguments), words)
    assert [path.name for path in (tmp_path/"mine").iterdir()] == ["notes.txt"] and (source/"model.safetensors").is_file()
    refused(command("predict", exported, "a joy", "--base", "x"), "is an exported model")
    refused(command("merge", exported), "holds no adapter")
    with pytest.raises(InputError, match="was exported for onnxruntime"): Classifier.load(exported)


def test_a_damaged_file_is_one_line(tiny, command, tmp_path):
    export_model(plain_classifier(tiny[0]), tiny[0], tmp_path/"onnx")
    (tmp_path/"onnx/model.onnx").write_bytes((tmp_path/"onnx/model.onnx").read_bytes()[:5000])
    refused(command("predict", "onnx", "a joy"), "cannot read the model onnx/model.onnx", "export it again")
    (tmp_path/"onnx/model.onnx").unlink()
    refused(command("predict", "onnx", "a joy"), "has no model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_is_named_before_the_work(package, tiny, exported, command, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    refused(command("export", tiny[0], "--out", "onnx"), f'an export needs {package}: pip install "sentiment-nbdev[export]"')


def test_a_reader_of_an_export_needs_onnxruntime_only(exported, command, monkeypatch):
    for package in ("onnx", "onnxscript"): monkeypatch.setitem(sys.modules, package, None)
    assert command("predict", exported, "a joy")[0] == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(command("predict", exported, "a joy"), 'onnxruntime: pip install "sentiment-nbdev[export]"')


@pytest.mark.slow                                              # a minute or two: MiniLM three times
def test_a_real_adapter_keeps_its_labels_in_eight_bits(saved, settings, command, tmp_path):
    "A trained MiniLM: one scale per matrix loses labels that blocks keep"
    assert command("train", "lora", "--n-train", 200, "--n-validation", 150, "--n-test", 16, "--epochs", 2, "--max-length", 48, "--out", "lora")[0] == 0
    code, out, err = command("export", "lora", "--out", "onnx", "--int8", "--recipes", "tensor,block", "--min-agreement", "0.95")
    assert code == 0, err
    card = json.loads((tmp_path/"onnx/sentiment.json").read_text())
    numbers = pd.DataFrame(card["export"]["table"]).T
    assert card["export"]["kept"] == "block" and numbers.loc["block", "difference"] < numbers.loc["tensor", "difference"] and numbers.loc["block", "MB"] < 27
    assert command("evaluate", "onnx")[0] == 0


def test_a_model_of_half_precision_is_exported_in_whole_floats(tiny, tmp_path):
    half = tmp_path/"half"
    classifier = Classifier.load(tiny[0], device="cpu")
    for part in (classifier.model.half(), classifier.tokenizer): part.save_pretrained(half)
    plain = plain_classifier(half)
    export_model(plain, half, tmp_path/"onnx")
    exported = load_classifier(tmp_path/"onnx")
    found = exported.logits(TEXTS)
    assert found.dtype == np.float32 and {p.dtype for p in plain.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(exported.probabilities(TEXTS).sum(axis=1), 1, atol=1e-6)


def test_a_weight_file_of_another_kind_beside_a_model_does_not_count(tiny, tmp_path):
    folder = tmp_path/"copy"
    shutil.copytree(tiny[0], folder)
    before = Classifier.load(folder, device="cpu").logits(TEXTS)
    (folder/"model.onnx").write_bytes(b"of an earlier upload")
    np.testing.assert_array_equal(Classifier.load(folder, device="cpu").logits(TEXTS), before)


def test_no_recipe_is_not_fp32_in_silence(command, tiny):
    refused(command("export", tiny[0], "--int8", "--recipes", ","), "--recipes names nothing")


def test_the_fingerprint_of_an_exported_model_covers_its_weights(exported, tmp_path):
    from sentiment_nbdev.jobs import model_sha256
    found = load_classifier(exported)
    before = model_sha256(found)
    shutil.copytree(exported, tmp_path/"other")
    with open(tmp_path/"other"/"model.onnx", "ab") as file: file.write(b"\0")
    other = replace(found, settings=replace(found.settings, model=str(tmp_path/"other")))
    assert model_sha256(other) != before
