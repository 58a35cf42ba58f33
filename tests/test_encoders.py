"""Encoders of many families, laid out as real files are: what a checkpoint brings arrives unchanged, what it lacks is trained and saved."""
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentiment_nbdev.fast_path import PADDING_FREE, skips_padding
from sentiment_nbdev.files import InputError
from sentiment_nbdev.lora import load_adapter, merge_adapter
from sentiment_nbdev.targets import lora_targets
from sentiment_nbdev.metrics import score_logits
from sentiment_nbdev.encoders import find_head
from sentiment_nbdev.models import load_encoder
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.runs import prepare_rows, save_run, train_method
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.tokenization import load_tokenizer
from sentiment_nbdev.training import predict_logits
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=66, pad_token_id=0)
KINDS = dict(bert={}, roberta={}, camembert={}, mpnet={}, electra=dict(embedding_size=16), albert=dict(embedding_size=16),
             distilbert=dict(dim=32, n_layers=2, n_heads=2, hidden_dim=48), modernbert=dict(global_attn_every_n_layers=2), longformer=dict(attention_window=[4, 4]))
KINDS |= {"xlm-roberta": {}, "deberta-v2": dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8)}
TARGETS = dict(distilbert=("q_lin", "v_lin"), mpnet=("q", "v"), modernbert=("Wqkv",)) | {"deberta-v2": ("query_proj", "value_proj")}
TEXTS = ["a lovely, lovely film", "two dull hours " * 30]


def checkpoint(kind, folder):
    "A tiny encoder, saved as the base model alone, with MiniLM's vocabulary"
    tokenizer = load_tokenizer(Settings())
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **SIZE | KINDS[kind], vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Settings(model=str(folder), revision="", n_train=24, n_validation=8, n_test=8, max_length=24, epochs=1, precision="fp32", device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tmp_path_factory): return request.param, checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def test_what_the_file_brings_arrives_unchanged(encoder):
    kind, settings = encoder
    model = load_encoder(settings)
    arrived = model.base_model.state_dict()
    brought = {name.removeprefix(f"{model.base_model_prefix}."): tensor for name, tensor in load_file(f"{settings.model}/model.safetensors").items()}
    shared = brought.keys() & arrived.keys()
    assert len(shared) >= 0.9 * len(brought) and all(torch.equal(brought[name], arrived[name]) for name in shared)
    assert not find_head(model).startswith(f"{model.base_model_prefix}.") and model.get_submodule(find_head(model)).out_features == 2


@pytest.fixture(scope="module", params=["full", "lora"])
def trained(request, encoder, tmp_path_factory):
    "Trained and saved once; every test below looks at the same folder"
    kind, settings = encoder
    rows, folder = prepare_rows(settings), tmp_path_factory.mktemp(f"{kind}-{request.param}")/"m"
    model, record, sha256 = train_method(request.param, rows, settings)
    save_run(request.param, model, rows, settings, sha256, folder)
    batch = rows.tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt").data
    if kind in ("distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "modernbert"): batch.pop("token_type_ids", None)
    with torch.no_grad(): logits = model.eval()(**batch).logits
    if request.param == "full": plain = AutoModelForSequenceClassification.from_pretrained(folder)
    else: plain = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(settings.model, num_labels=2), folder)
    return SimpleNamespace(kind=kind, method=request.param, settings=settings, rows=rows, record=record, folder=folder, plain=plain.eval(), batch=batch, logits=logits,
                           base=settings.model if request.param == "lora" else None)


def test_loaded_here_and_elsewhere(trained):
    "The same logits from our loader, from plain transformers or PEFT, and after merging"
    np.testing.assert_allclose(Classifier.load(trained.folder, base=trained.base).logits(TEXTS), trained.logits, atol=1e-4)
    with torch.no_grad(): assert torch.allclose(trained.plain(**trained.batch).logits, trained.logits, atol=1e-4)    # nothing of it was left to chance
    if trained.method == "full": return
    assert trained.record.settings["lora_targets"] == lora_targets(load_encoder(trained.settings), trained.settings) == TARGETS.get(trained.kind, ("query", "value"))
    merged = merge_adapter(load_adapter(trained.folder, trained.base)[0]).eval()
    with torch.no_grad(): assert torch.allclose(merged(**trained.batch).logits, trained.logits, atol=1e-4)


def test_a_pipeline_predicts_what_we_predict(trained):
    "Label, probability and the side that is cut"
    tokenizer, model = AutoTokenizer.from_pretrained(trained.folder), trained.plain
    if trained.method == "lora": model.config.id2label = dict(enumerate(trained.settings.labels))
    piped = pipeline("text-classification", model=model, tokenizer=tokenizer, truncation=True, top_k=1)
    for text, answer in zip(TEXTS, Classifier.load(trained.folder, base=trained.base).predict(TEXTS)):
        [[given]] = piped([text])
        assert (given["label"], given["score"]) == (answer.label, pytest.approx(answer.probability, abs=1e-4))


def test_evaluate_gives_the_scores_of_the_record(trained, command):
    "What the saved folder is said to score is what it scored when it was trained"
    code, out, err = command("evaluate", trained.folder, *(["--base", trained.base] if trained.base else []))
    assert code == 0, err
    printed = dict(line.split() for line in out.splitlines())
    expected = score_logits(*(predict_logits(trained.plain, trained.rows.tokens["test"], trained.rows.tokenizer, trained.settings), trained.rows.tokens["test"]["labels"]))
    assert {name: float(value) for name, value in printed.items()} == {name: pytest.approx(value, rel=1e-3, abs=1e-4) for name, value in expected.items()}


def test_padding_free_where_it_is_equal(trained):
    "A loaded classifier computes nothing for padding in these families, and the logits are those of the plain model"
    classifier = Classifier.load(trained.folder, base=trained.base)
    assert skips_padding(classifier.model) == (trained.kind in PADDING_FREE)
    with torch.no_grad(): plain = trained.plain(**trained.batch).logits
    np.testing.assert_allclose(classifier.logits(TEXTS), plain, atol=1e-5)


def test_an_encoder_that_is_not_whole_is_refused(tmp_path):
    "Under another prefix, or without a layer, the weights would be random in silence"
    settings = checkpoint("bert", tmp_path)
    whole = load_file(tmp_path/"model.safetensors")
    save_file({f"mine.{name}": tensor for name, tensor in whole.items()}, tmp_path/"model.safetensors", metadata=dict(format="pt"))
    with pytest.raises(InputError, match="does not bring all weights of its encoder"): load_encoder(settings)
    save_file({name: tensor for name, tensor in whole.items() if "layer.1.output" not in name}, tmp_path/"model.safetensors", metadata=dict(format="pt"))
    with pytest.raises(InputError, match="does not bring all weights of its encoder"): load_encoder(settings)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_model_that_writes_is_refused(kind, tmp_path):
    tokenizer = load_tokenizer(Settings())
    shape = dict(n_embd=32, n_layer=1, n_head=2) if kind == "gpt2" else SIZE | dict(is_decoder=True)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no encoder"): load_encoder(Settings(model=str(tmp_path), revision=""))


MORE = dict(nystromformer=dict(num_landmarks=4, segment_means_seq_len=4), roformer=dict(embedding_size=32), ibert={}, fnet={}, esm=dict(position_embedding_type="rotary"))


@pytest.mark.parametrize("kind, positions", [("roberta", 65), ("mpnet", 64), ("longformer", 65), ("nystromformer", 66), ("roformer", 66), ("ibert", 65)])
def test_the_limit_is_that_of_usable_positions(kind, positions, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "KINDS", KINDS | MORE)
    settings = checkpoint(kind, tmp_path)
    with pytest.raises(InputError, match=f"has {positions} usable positions"): load_tokenizer(replace(settings, max_length=70))
    tokenizer = load_tokenizer(replace(settings, max_length=positions))
    with torch.no_grad(): load_encoder(settings).eval()(**tokenizer(["dull " * 99], truncation=True, return_tensors="pt"))     # the longest text passes


@pytest.mark.parametrize("kind, changes", [("deberta-v2", dict(position_biased_input=False)), ("modernbert", {}), ("esm", {})])
def test_an_encoder_without_a_limit_takes_long_texts(kind, changes, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "KINDS", {kind: (KINDS | MORE)[kind] | changes})
    settings = replace(checkpoint(kind, tmp_path), max_length=400)
    tokenizer, model = load_tokenizer(settings), load_encoder(settings).eval()
    def logits(texts):
        batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt").data
        with torch.no_grad(): return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
    assert torch.allclose(logits(["a joy"]), logits(["a joy", "two dull hours " * 200]), atol=1e-5)


def test_an_encoder_that_reads_padding_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "KINDS", MORE)
    with pytest.raises(InputError, match="is a fnet, which cannot tell padding from text"): load_tokenizer(checkpoint("fnet", tmp_path))


SHORT = dict(local_attn_chunk_length=4, lsh_attn_chunk_length=4, num_buckets=4, feed_forward_size=48, attention_head_size=16, axial_pos_shape=[6, 11], axial_pos_embds_dim=[16, 16])
UNEVEN = dict(nystromformer=MORE["nystromformer"], yoso={}, convbert=dict(embedding_size=32, conv_kernel_size=3, head_ratio=2), big_bird=dict(block_size=4, num_random_blocks=2),
              reformer=SHORT | dict(attn_layers=["local", "lsh"]), squeezebert=dict(embedding_size=32, q_groups=1, k_groups=1, v_groups=1, post_attention_groups=1, intermediate_groups=1, output_groups=1))


@pytest.mark.parametrize("kind, words", [("nystromformer", "changes with the other texts of its batch"), ("yoso", "changes with the other texts"), ("convbert", "changes with the other texts"),
                                         ("big_bird", "changes with the other texts|any length"), ("reformer", "cannot take texts of any length"), ("squeezebert", "")])
def test_an_encoder_whose_answers_depend_on_their_neighbours_is_refused(kind, words, tmp_path, monkeypatch):
    "Before it is trained, and when somebody else's classifier is loaded; weights of ordinary size, or the difference would hide"
    monkeypatch.setattr(sys.modules[__name__], "KINDS", {kind: UNEVEN[kind] | dict(initializer_range=0.3)})
    settings = replace(checkpoint(kind, tmp_path/"encoder"), max_length=60)
    AutoModelForSequenceClassification.from_pretrained(tmp_path/"encoder").save_pretrained(tmp_path/"classifier")
    load_tokenizer(settings).save_pretrained(tmp_path/"classifier")
    for use in (lambda: train_method("full", prepare_rows(settings), settings), lambda: Classifier.load(tmp_path/"classifier")):
        if not words: use(); continue
        with pytest.raises(InputError, match=words) as raised: use()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind, words", [("t5", "is a t5, which has a decoder behind its encoder"), ("bart", "is a bart, which has a decoder behind"), ("xlnet", "is a xlnet, which is none of the encoders that are supported"),
                                         ("canine", "is a canine, which is none of the encoders"), ("llama", "is a llama, which reads from left to right"), ("gpt2", "is a gpt2, which reads from left to right")])
def test_what_is_no_encoder_is_named_before_training(kind, words, tmp_path):
    "By the kind that it is; only its config is looked at"
    tokenizer = load_tokenizer(Settings())
    AutoConfig.for_model(kind, **({} if kind == "canine" else dict(vocab_size=len(tokenizer)))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path/"model.safetensors").touch()
    with pytest.raises(InputError, match=words): prepare_rows(Settings(model=str(tmp_path), revision="", n_train=8, n_validation=4, n_test=4, max_length=16))
