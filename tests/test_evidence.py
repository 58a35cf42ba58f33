"""The error rates that tests and intervals promise, and what they say of data that are all alike."""
import numpy as np
import pytest
from scipy.stats import t as student
from sentiment_nbdev.evidence import equivalence_p, method_difference, paired_difference, verdict
from sentiment_nbdev.files import InputError


def answers(rng, difference, disagree, n, seeds=1):
    "Right or wrong of two methods: B alone is right more often than A alone by `difference`"
    luck = rng.random((seeds, n))
    only_b, only_a = (disagree + difference) / 2, (disagree - difference) / 2
    return ~(luck < only_b), ~((luck >= only_b) & (luck < only_b + only_a))


def test_paired_difference_is_antisymmetric_and_repeatable():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.8, rng.random(400) < 0.9
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one == paired_difference(a, b)
    assert one.difference == -other.difference and one.mcnemar_p == other.mcnemar_p
    assert one.low == pytest.approx(-other.high, abs=0.005)
    assert verdict(one, "full", "LoRA").startswith("LoRA higher than full by ")
    assert verdict(other, "full", "LoRA").startswith("LoRA lower than full by ")
    assert "90 % interval" in verdict(paired_difference(a, b, level=0.9), "full", "LoRA")


def test_equal_models_are_rarely_called_different():
    rng = np.random.default_rng(0)
    found = [not verdict(paired_difference(rng.random(200) < 0.9, rng.random(200) < 0.9), "A", "B").startswith("no difference") for _ in range(100)]
    assert sum(found) <= 9


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_degenerate_pairs(n):
    same, opposite = paired_difference([1] * n, [1] * n), paired_difference([0] * n, [1] * n)
    assert verdict(same, "A", "B").startswith("B equivalent to A" if n == 1000 else "no difference") and -1 <= same.low < 0 < same.high <= 1
    assert verdict(opposite, "A", "B").startswith("B higher") == (n > 5)
    assert all(np.isfinite([r.low, r.high, r.difference, r.mcnemar_p]).all() for r in (same, opposite))


@pytest.mark.parametrize("disagree,seeds", [(0.01, 1), (0.06, 1), (0.06, 3)])
def test_a_difference_of_the_margin_is_rarely_called_equivalent(disagree, seeds):
    rng = np.random.default_rng(0)
    p = [method_difference(*answers(rng, 0.01, disagree, 500 if disagree < 0.02 else 3000, seeds)).equivalence_p for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) <= 0.08


def test_equal_methods_are_called_equivalent_when_there_are_rows_enough():
    rng = np.random.default_rng(0)
    called = [verdict(paired_difference(*[x[0] for x in answers(rng, 0, 0.06, 25_000)]), "A", "B").startswith("B equivalent to A within ±1 point (") for _ in range(20)]
    assert sum(called) == 20
    assert not any(paired_difference(*[x[0] for x in answers(rng, 0, 0.06, 500)]).equivalence_p < 0.05 for _ in range(20))


def test_a_small_difference_that_is_shown_says_both():
    a, b = answers(np.random.default_rng(0), 0.004, 0.02, 25_000)
    said = verdict(paired_difference(a[0], b[0]), "A", "B")
    assert said.startswith("B higher than A by 0.") and "yet equivalent within ±1 point (95 % interval" in said
    assert "within ±2 points" in verdict(paired_difference(a[0], b[0], margin=0.02), "A", "B")


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    error, df, n = 0.004, 7.3, 25_000
    edge = 0.01 - student.ppf(0.95, df) * error
    assert equivalence_p(edge, error, df, n) == pytest.approx(0.05)
    assert equivalence_p(-edge, error, df, n) == equivalence_p(edge, error, df, n)


@pytest.mark.parametrize("margin", [0, -0.01, 1, 1.5])
def test_a_margin_is_a_share(margin):
    with pytest.raises(InputError, match="between 0 and 1"): paired_difference([1], [1], margin=margin)


def test_a_correction_takes_either_verdict_back():
    a, b = answers(np.random.default_rng(0), 0.004, 0.02, 25_000)
    result = paired_difference(a[0], b[0])
    assert verdict(result, "A", "B", p=0.2, equivalence=0.2).startswith("no difference shown (") and "p = 0.20 after Holm" in verdict(result, "A", "B", p=0.2, equivalence=0.2)
    assert verdict(result, "A", "B", p=0.2, equivalence=0.001).startswith("B equivalent to A within")
