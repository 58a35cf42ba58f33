"""Scores against other implementations, and error messages."""
import warnings

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, f1_score, log_loss
from transformers import EvalPrediction
from sentiment_nbdev.metrics import (Calibration, SentimentMetric, calibrate, compute_metrics, expected_calibration_error, label_scores, reliability_bins,
                                     score_logits, wilson_interval)
from sentiment_nbdev.files import InputError


def made_up(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    return logits, np.where(rng.random(n) < 0.8, logits.argmax(1), rng.integers(0, classes, n))


def ece_by_loops(probabilities, labels, bins=10):
    "Equal counts of rows, when no two confidences are equal"
    confidence = probabilities.max(1)
    parts = np.array_split(np.argsort(confidence), bins)
    return sum(abs(((probabilities.argmax(1) == labels) - confidence)[part].sum()) for part in parts) / len(labels)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_agree_with_other_implementations(classes):
    logits, labels = made_up(500, classes)
    scores, probabilities = score_logits(logits, labels), softmax(logits, axis=1)
    assert scores["n"] == 500 and all(type(v) in (int, float) for v in scores.values())
    assert scores["nll"] == pytest.approx(log_loss(labels, probabilities))
    assert scores["ece"] == pytest.approx(ece_by_loops(probabilities, labels))
    assert scores["brier"] == pytest.approx(brier_score_loss(labels, probabilities, labels=range(classes), scale_by_half=False))
    average = dict(average="binary") if classes == 2 else dict(average="macro")
    assert scores["f1"] == pytest.approx(f1_score(labels, logits.argmax(1), **average))
    assert scores["accuracy_low"] < scores["accuracy"] < scores["accuracy_high"]


@pytest.mark.parametrize("predictions,references", [([0, 0], [0, 0]), ([1, 1], [1, 1]), ([0, 0], [0, 1]), ([1, 1], [0, 0])])
def test_a_collapsed_model_is_scored_without_a_warning(predictions, references):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = label_scores(predictions, references)
    assert scores["mcc"] == 0 and 0 <= scores["f1"] <= 1


def test_large_logits_stay_finite():
    scores = score_logits([[1e4, 0], [0, 1e4]], [1, 1])
    assert scores["nll"] == pytest.approx(5000)


@pytest.mark.parametrize("n", [1, 3, 10, 11, 25, 997, 1000])
def test_bins_hold_equal_counts(n):
    confidence = np.random.default_rng(0).permutation(np.linspace(0.5, 1, n))
    counts = [b["n"] for b in reliability_bins(np.stack([1 - confidence, confidence], 1), np.ones(n, int))]
    assert len(counts) == min(n, 10) and sum(counts) == n and max(counts) - min(counts) <= 1


def test_rows_of_one_confidence_share_a_bin():
    "So the bins don't depend on the order of the rows"
    rng = np.random.default_rng(0)
    confidence, labels = rng.choice([0.6, 0.7, 0.99], 500, p=[0.1, 0.1, 0.8]), rng.integers(0, 2, 500)
    bins = reliability_bins(np.stack([1 - confidence, confidence], 1), labels)
    order = rng.permutation(500)
    assert [b["n"] for b in bins] == [(confidence < 0.9).sum(), (confidence > 0.9).sum()]      # fewer than 100 rows of the two lower ones
    again = reliability_bins(np.stack([1 - confidence, confidence], 1)[order], labels[order])
    assert [b["accuracy"] for b in again] == pytest.approx([b["accuracy"] for b in bins])


def test_calibration_of_one_row_and_of_certainty():
    assert expected_calibration_error([[0.0, 1.0], [0.5, 0.5]], [1, 0]) == pytest.approx(0.25)
    assert expected_calibration_error([[0.0, 1.0]] * 4, [0] * 4) == 1.0
    assert expected_calibration_error([[0.3, 0.7]], [1]) == pytest.approx(0.3)


def test_a_calibration_says_which_bins_it_has():
    logits, labels = made_up(60, 2)
    old = dict(temperature=1.0, nll=0.5, ece=0.1, bins=[], nll_raw=0.5, ece_raw=0.1, bins_raw=[])
    assert Calibration(**old).binning == "equal width" and Calibration(**old).brier is None
    new = calibrate((logits, labels), (logits, labels))
    assert new.binning == "equal counts" and 0 < new.brier <= new.brier_raw + 0.05 < 2


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_wilson_holds_its_level_on_average(n):
    shares = np.linspace(0.02, 0.98, 49)
    ends = np.array([wilson_interval(c, n) for c in range(n + 1)])
    held = [binom.pmf(np.arange(n + 1), n, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum() for p in shares]
    assert 0.94 < np.mean(held) < 0.965


@pytest.mark.parametrize("logits,labels,message", [
    ([[0, 1]], [0, 1], "1 rows of scores but 2 labels"), ([[0, 1], [0, np.inf]], [0, 1], "row 1 are not finite"),
    ([[0, 1]], [-1], "label -1 of row 0"), ([[0, 1]], [0.5], "take the argmax"), (np.zeros((0, 2)), [], "labels is empty"),
    ([[0], [1]], [0, 0], "one column per class"), ([0, 1], [0, 1], "one column per class")])
def test_wrong_input_is_one_line(logits, labels, message):
    with pytest.raises(InputError, match=message) as e: score_logits(logits, labels)
    assert "\n" not in str(e.value)


def test_the_metric_in_pieces_and_its_refusals():
    metric = SentimentMetric()
    metric.add_batch(predictions=np.array([0, 1]), references=np.array([0, 0]))
    metric.add(prediction=1, reference=1)
    assert metric.compute() == label_scores([0, 1, 1], [0, 0, 1])
    assert metric.compute(predictions=[2, 0], references=[2, 1], n_classes=3)["accuracy"] == 0.5
    for wrong in ([0.0, 1.0], [[0, 1], [1, 0]], []):
        with pytest.raises(InputError): SentimentMetric().compute(predictions=wrong, references=[0, 1])


def test_the_callback_is_flat_and_takes_tuples():
    logits, labels = made_up(50, 2)
    scores = compute_metrics(EvalPrediction(predictions=(logits.astype(np.float32), None), label_ids=labels))
    assert list(scores) == ["accuracy", "f1", "macro_f1", "mcc", "nll", "ece", "brier"] and {type(v) for v in scores.values()} == {float}


def test_it_joins_with_other_metrics():
    import evaluate
    joined = evaluate.combine([SentimentMetric()])
    for part in ([0, 1], [1, 1]): joined.add_batch(predictions=part, references=[0, 1])
    assert joined.compute() == label_scores([0, 1, 1, 1], [0, 1, 0, 1])
