"""Token attributions: their sum, what was not read, every kind of model, and one-line errors. Without captum (extra `inside`) all but one are skipped."""
import copy, sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, ModernBertConfig, RobertaConfig
from sentiment_nbdev.attributions import TOLERANCE, Attribution, attribute, cut_tokens, deletion_test, drop_table
from sentiment_nbdev.cli import main
from sentiment_nbdev.fast_path import make_quick, skips_padding
from sentiment_nbdev.files import InputError
from sentiment_nbdev.models import pool_mean
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.records import results_folder
from sentiment_nbdev.runs import train_and_save
from sentiment_nbdev.settings import Settings
from sentiment_nbdev.tokenization import load_tokenizer, tokenize

TEXT = "a slow start, and then a lovely, lovely film"
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
TINY = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, vocab_size=30522)
CONFIGS = [BertConfig(**TINY), RobertaConfig(**TINY, pad_token_id=0), DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=16, vocab_size=30522),
           ModernBertConfig(**TINY, pad_token_id=0, bos_token_id=101, eos_token_id=102, cls_token_id=101, sep_token_id=102)]


@pytest.fixture(scope="module")
def captum(): return pytest.importorskip("captum")


@pytest.fixture(scope="module")
def critic(): return Classifier.load(results_folder()/"adapter", device="cpu")


def gained(classifier, found):
    "What the scores must add up to, from the model itself"
    target = classifier.settings.labels.index(found.label)
    return replace(classifier, settings=replace(classifier.settings, precision="fp32")).logits([TEXT])[0][target] - found.baseline


@pytest.mark.parametrize("label", ["NEG", "POS"])
def test_the_scores_add_up_to_what_the_logit_gained(label, captum, critic):
    found = attribute(critic, TEXT, label=label)
    assert found.label == label and abs(found.scores.sum() - gained(critic, found)) < TOLERANCE
    assert found.scores[0] == found.scores[-1] == 0 and len(found.tokens) == len(found.scores)


def test_a_merged_model_gives_the_attributions_of_its_adapter(captum, critic, tmp_path):
    assert main(["merge", str(results_folder()/"adapter"), "--out", str(tmp_path/"merged")]) == 0
    merged = attribute(Classifier.load(tmp_path/"merged", device="cpu"), TEXT)
    assert np.allclose(merged.scores, attribute(critic, TEXT).scores, atol=1e-3)


@pytest.mark.parametrize("method", ["probe", "lora"])
def test_a_head_that_reads_the_mean_has_attributions(method, captum, tmp_path):
    settings = Settings(n_train=24, n_validation=16, n_test=16, max_length=24, epochs=1, precision="fp32", device="cpu", pooling="mean")
    train_and_save(method, settings, tmp_path/"model")
    classifier = Classifier.load(tmp_path/"model", device="cpu")
    found = attribute(classifier, TEXT)
    assert abs(found.scores.sum() - gained(classifier, found)) < TOLERANCE and np.abs(found.scores).max() > 0


@pytest.mark.parametrize("mean", [False, True], ids=["cls", "mean"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_fast_path_has_the_attributions_of_the_plain_one(config, mean, captum):
    "Also where padding ids would move the positions of the baseline (RoBERTa) and where ids are packed before the embedding (ModernBERT)"
    torch.manual_seed(0)
    plain = AutoModelForSequenceClassification.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in plain.parameters(): parameter.add_(0.2 * torch.randn_like(parameter))
    if mean: pool_mean(plain)
    settings = Settings(device="cpu", max_length=32, padding_free="off")
    slow = attribute(Classifier(plain, load_tokenizer(settings), settings), TEXT)
    quick = make_quick(plain, replace(settings, padding_free="on"))
    assert skips_padding(quick)
    fast = attribute(Classifier(quick, load_tokenizer(settings), settings), TEXT)
    assert abs(slow.gap) < TOLERANCE and np.abs(slow.scores).max() > 1e-3 and np.allclose(fast.scores, slow.scores, atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_tokens_that_are_cut_away_are_named_where_they_are_missing(side, captum, critic):
    tokenizer = load_tokenizer(Settings(max_length=10, truncation_side=side))
    [read], whole = tokenize([LONG], tokenizer)["input_ids"], tokenizer(LONG, truncation=False, verbose=False)["input_ids"]
    place, lost = cut_tokens(LONG, tokenizer)
    assert read[:place] + lost + read[place:] == whole and len(lost) == 8
    found = attribute(replace(critic, tokenizer=tokenizer), LONG)
    expected = LONG.split()[dict(left=0, right=8, middle=2)[side]:][:8]
    assert found.unread == expected and len(found.tokens) == 10 and f"tokens not read (8): {expected[0]}" in found._repr_html_()


def test_a_text_that_fits_has_nothing_unread(captum, critic): assert cut_tokens(TEXT, critic.tokenizer) == (0, []) and not attribute(critic, TEXT).unread


def test_nothing_of_the_model_changes(captum, critic):
    before = [parameter.clone() for parameter in critic.model.parameters()]
    attribute(critic, TEXT)
    assert all(torch.equal(old, new) for old, new in zip(before, critic.model.parameters()))
    assert not critic.model.training and not critic.model.get_input_embeddings()._forward_pre_hooks and not critic.model.get_input_embeddings()._forward_hooks
    assert all(parameter.grad is None for parameter in critic.model.parameters())


def test_few_steps_become_more_until_the_sum_is_right(captum, critic, monkeypatch):
    assert abs(attribute(critic, TEXT, steps=2).gap) < TOLERANCE
    monkeypatch.setattr("sentiment_nbdev.attributions.TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"miss the logit by .* after 16 steps"): attribute(critic, TEXT, steps=1)


def test_the_picture_needs_no_colours_and_no_trust():
    found = Attribution("POS", ["[CLS]", "<i>", "dull", "[SEP]"], np.array([0, 0.5, -1.0, 0]), 0.2, 0.7)
    shown = found._repr_html_()
    assert "&lt;i&gt;" in shown and "<i>" not in shown and "+0.50" in shown and "-1.00" in shown and "not read" not in shown
    assert abs(found.gap) < 1e-12 and repr(found).startswith("POS 0.20 = 0.70 without words -0.50 from them")


def test_the_highest_tokens_matter_more_than_random_ones(captum, critic):
    drops = deletion_test(critic, ["The plot is thin and the jokes are old, but I loved every minute of it.", "Two dreadful hours of my life that I will not get back."], k=2, draws=4)
    assert (drops["highest"] > drops["random"]).all() and (drops["lowest"] < drops["random"]).all()
    assert drop_table(drops).index.tolist() == ["highest", "random", "lowest", "highest - random"]


def test_the_same_seed_draws_the_same_tokens(captum, critic):
    one, two = (deletion_test(critic, [TEXT], k=2, draws=2, seed=3) for _ in range(2))
    assert one.equals(two)


@pytest.mark.parametrize("wrong, said", [(dict(text=" "), "text 0 is empty"), (dict(text=["a film"]), "not a string"), (dict(label="good"), "no class 'good': name one of NEG, POS"),
                                         (dict(steps=0), "steps is 0")], ids=["empty", "list", "label", "steps"])
def test_wrong_input_is_one_line(wrong, said, captum, critic):
    with pytest.raises(InputError, match=said) as raised: attribute(critic, **(dict(text=TEXT) | wrong))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", [dict(k=0), dict(draws=0), dict(k=50)], ids=str)
def test_a_deletion_test_that_cannot_be_made_says_so(wrong, captum, critic):
    with pytest.raises(InputError, match="k is 0|draws is 0|name a k below"): deletion_test(critic, [TEXT], **wrong)


def test_without_captum_one_line_names_the_extra(critic, monkeypatch):
    for name in ("captum", "captum.attr"): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"attributions need captum: `pip install sentiment-nbdev\[inside\]`"): attribute(critic, TEXT)
