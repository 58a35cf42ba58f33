"""A head that reads the mean over the tokens: kept by every way of saving, and refused by programs that would read something else."""
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, ModernBertConfig, RobertaConfig
from sentiment_nbdev.cli import main
from sentiment_nbdev.fast_path import make_quick, skips_padding
from sentiment_nbdev.models import load_encoder, pool_mean
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.runs import prepare_rows, train_and_save
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.training import predict_logits

SMALL = Settings(n_train=24, n_validation=16, n_test=24, max_length=24, epochs=1, precision="fp32", device="cpu", batch_size=8)
TEXTS = ["a lovely, lovely film", "a dull film", "not bad, not good, and far too long for what it has to say"]
TINY = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, vocab_size=50)


@pytest.mark.parametrize("method", ["probe", "lora", "full"])
def test_a_saved_model_reads_the_mean_again(tmp_path, method):
    settings = replace(SMALL, pooling="mean")
    record = train_and_save(method, settings, tmp_path/"model")
    rows = prepare_rows(settings)
    classifier = Classifier.load(tmp_path/"model")
    logits = predict_logits(classifier.model, rows.tokens["test"], rows.tokenizer, settings)
    right = "".join(str(int(guess == label)) for guess, label in zip(logits.argmax(-1), rows.tokens["test"]["labels"]))
    assert right == record.correct


def test_the_probe_reads_the_mean_and_lora_the_summary_unless_told(tmp_path):
    assert train_and_save("probe", SMALL, tmp_path/"probe").settings["pooling"] == "mean"
    assert train_and_save("lora", SMALL, tmp_path/"lora").settings["pooling"] == "cls"


def test_plain_transformers_refuses_a_mean_pooled_model(tmp_path):
    train_and_save("probe", SMALL, tmp_path/"probe")
    with pytest.raises(ValueError, match="mean-pooled-bert"): AutoModelForSequenceClassification.from_pretrained(tmp_path/"probe")


def test_plain_peft_refuses_a_mean_pooled_adapter(tmp_path):
    train_and_save("lora", replace(SMALL, pooling="mean"), tmp_path/"lora")
    with pytest.raises((ValueError, KeyError, TypeError)): PeftModel.from_pretrained(load_encoder(SMALL), tmp_path/"lora")


def test_a_mean_pooled_model_is_merged_with_the_same_answers(tmp_path):
    train_and_save("lora", replace(SMALL, pooling="mean"), tmp_path/"lora")
    assert main(["merge", str(tmp_path/"lora"), "--out", str(tmp_path/"merged")]) == 0
    answers = [[row[1] for row in Classifier.load(tmp_path/name).predict(TEXTS)] for name in ("lora", "merged")]
    assert np.allclose(*answers, atol=1e-5)


FAMILIES = [BertConfig(**TINY), RobertaConfig(**TINY), ModernBertConfig(**TINY, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
            DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=16, vocab_size=50)]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda c: c.model_type)
def test_the_first_place_holds_the_mean_in_every_family(config):
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids, mask = torch.randint(5, 50, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = torch.stack([hidden[0].mean(0), hidden[1, :4].mean(0)])
        pooled = pool_mean(model).base_model(input_ids=ids, attention_mask=mask)
        assert torch.allclose(pooled.last_hidden_state[:, 0], mean, atol=1e-6)
        assert torch.isfinite(model(input_ids=ids, attention_mask=mask).logits).all()
    if config.model_type == "bert": assert torch.allclose(pooled.pooler_output, mean, atol=1e-6)


@pytest.mark.parametrize("config", FAMILIES, ids=lambda c: c.model_type)
def test_the_fast_path_takes_the_mean_over_the_same_tokens(config):
    "ModernBERT is packed as a whole, so its hook that unpacks must come before the one that pools"
    model = pool_mean(AutoModelForSequenceClassification.from_config(copy.deepcopy(config))).eval()
    ids, mask = torch.randint(5, 50, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        plain = model(input_ids=ids, attention_mask=mask).logits
        quick = make_quick(model, replace(SMALL, padding_free="on"))
        assert skips_padding(quick) and torch.allclose(quick(input_ids=ids, attention_mask=mask).logits, plain, atol=1e-5)
