"""The hub's real client against a stand-in on this machine: push, load, and the profile `imdb` end to end."""
import hashlib, json, os, re, shutil

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from sentiment_nbdev.files import InputError, check_folder
from stand_in_hub import serve


@pytest.fixture
def hub(tmp_path, processes):
    "Run commands in one process against the stand-in; gives (that, its root, the requests it saw). Any other host is unreachable"
    root, requests = tmp_path/"hub", []
    for kind in ("models", "datasets"): (root/kind).mkdir(parents=True)
    with serve(root, requests) as address:
        nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
        environment = {**os.environ, **nowhere, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path/"home"),
                       "HF_TOKEN": "hf_token_of_a_test", "HF_HUB_DISABLE_XET": "1"}
        yield lambda *commands: processes(*commands, env=environment), root, requests


SMALL = ["--n-train", "16", "--n-validation", "12", "--n-test", "12", "--max-length", "32", "--epochs", "1"]


def test_push_and_load(hub, tmp_path):
    run, root, requests = hub
    train, predict, push = ["train", "lora", *SMALL, "--out", "mine"], ["predict", "mine", "a lovely, lovely film"], ["push", "mine", "me/my-critic"]
    (trained, _, err), (_, before, _), (pushed, out, words) = run(train, predict, push)
    assert trained == 0, err
    assert pushed == 0 and out.strip().endswith("/me/my-critic"), words
    there = {path.name for path in (root/"models/me/my-critic").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "sentiment.json", "record.json", "README.md"} <= there
    card, record = ModelCard.load(root/"models/me/my-critic/README.md"), json.loads((tmp_path/"mine/record.json").read_text())
    assert card.data.eval_results[0].metric_value == round(record["test"]["accuracy"], 4)
    assert f"{record['test']['accuracy_low']:.1%} to {record['test']['accuracy_high']:.1%}" in card.text
    assert "Probabilities: " in card.text and json.loads((root/"models/me/my-critic/sentiment.json").read_text())["confidence"]["counts"][0][1] == 12
    assert (tmp_path/"mine/README.md").read_text() == (root/"models/me/my-critic/README.md").read_text()
    check_folder(tmp_path/"mine")                               # training may replace it: all of it is ours
    with (tmp_path/"mine/README.md").open("a") as file: file.write("Beware of irony.\n")
    with pytest.raises(InputError, match="it also holds README.md"): check_folder(tmp_path/"mine")
    shutil.rmtree(tmp_path/"mine")
    [(code, after, err)] = run(["predict", "hf://me/my-critic", "a lovely, lovely film"])
    assert code == 0 and after == before, err
    assert "POST /api/repos/create" in requests


def test_push_what_was_made_from_a_model(hub, tiny_encoder, tmp_path):
    "A merged and an exported model keep the record of the training and name the weights they came from"
    pytest.importorskip("onnxscript")
    run, root, _ = hub
    base = ["--base", tiny_encoder]
    done = run(["train", "lora", "--model", tiny_encoder, *SMALL, "--set", "precision=fp32", "--out", "mine"], ["merge", "mine", *base, "--out", "merged"], ["export", "mine", *base, "--out", "onnx"],
               ["push", "merged", "me/merged"], ["push", "onnx", "me/onnx"], ["predict", "mine", "a lovely, lovely film", *base])
    assert [code for code, _, _ in done] == [0] * 6, done
    before = done[-1][1]
    record, sha256 = (tmp_path/"mine/record.json").read_bytes(), hashlib.sha256((tmp_path/"mine/adapter_model.safetensors").read_bytes()).hexdigest()
    for name, weights, results in (("merged", "model.safetensors", 1), ("onnx", "model.onnx", 0)):
        there = root/"models/me"/name
        card = ModelCard.load(there/"README.md")
        assert (there/weights).read_bytes() == (tmp_path/name/weights).read_bytes() and (there/"record.json").read_bytes() == record
        assert sha256 in card.text and len(card.data.eval_results or []) == results       # nobody tested the exported file on test rows
        shutil.rmtree(tmp_path/name)
    for code, after, err in run(*(["predict", f"hf://me/{name}", "a lovely, lovely film"] for name in ("merged", "onnx"))): assert code == 0 and after == before, err
    assert "12 validation rows it gives the same label as PyTorch for 100.00%" in card.text


@pytest.mark.slow
def test_push_without_a_record_or_with_a_bad_name(hub, saved):
    run, root, requests = hub
    done = run(["push", saved/"whole", "me/x"], ["predict", "hf://me/nothing", "a joy"])
    for (code, _, err), words in zip(done, ("holds no record.json", "me/nothing"), strict=True): assert code == 2 and words in err and len(err.splitlines()) == 1, err
    assert not [line for line in requests if line.startswith("POST")]


@pytest.mark.slow
def test_profile_imdb_from_the_hub(hub, tmp_path):
    "bert-base-uncased (its layout, a small shape, random weights) and stanfordnlp/imdb (rows of ours) through the real client"
    from transformers import AutoConfig, AutoModelForMaskedLM
    from sentiment_nbdev.corpus import corpus_rows
    from sentiment_nbdev.settings import PINS, Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    run, root, requests = hub
    model, data = root/"models/google-bert/bert-base-uncased", root/"datasets/stanfordnlp/imdb"
    tokenizer = load_tokenizer(Settings())
    shape = dict(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **shape)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    data.mkdir(parents=True)
    for split, n in (("train", 80), ("test", 40)): pd.DataFrame(corpus_rows(split)[:n])[["text", "label"]].to_parquet(data/f"{split}.parquet")
    names = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': neg\n          '1': pos\n"
    files = "configs:\n- config_name: plain_text\n  data_files:\n  - split: train\n    path: train.parquet\n  - split: test\n    path: test.parquet\n"
    (data/"README.md").write_text(f"---\n{names}{files}---\n")
    train = ["train", "lora", "--profile", "imdb", *SMALL, "--set", "n_validation=16", "--out"]
    [(code, _, err)] = run([*train, "mine"])
    assert code == 0, err
    record = json.loads((tmp_path/"mine/record.json").read_text())
    assert record["settings"]["revision"] == PINS["google-bert/bert-base-uncased"] and record["settings"]["data_revision"] == PINS["stanfordnlp/imdb"]
    asked = [line.split()[1] for line in requests if line != "GET /api/agent-harnesses"]   # the client's own question, to the same host
    assert asked and all(re.search("bert-base-uncased|stanfordnlp/imdb", path) for path in asked)
    assert not [path for path in asked if "resolve/main" in path]             # pinned commits only
    print(*requests, sep="\n")                                                      # pytest -rP shows them
    before = len(requests)
    assert run([*train, "again"])[0][0] == 0
    assert not [line for line in requests[before:] if "resolve" in line and line.startswith("GET")]   # nothing is downloaded twice
