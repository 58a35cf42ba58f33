"""The error rates that tests and intervals promise, and what they say of data that are all alike."""
import numpy as np
import pytest
from scipy.stats import t as student
from sentiment_nbdev.evidence import by_group, equivalence_p, method_difference, paired_difference, standard_errors, verdict
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


def filmed(rng, films=60, size=20, seeds=1, spread=0.3):
    "Two equal methods; the reviews of one film favour A or B together"
    groups = np.repeat(np.arange(films), size)
    lean = rng.normal(0, spread, films)[groups]
    return [rng.random((seeds, len(groups))) < 0.7 + side * lean / 2 for side in (-1, 1)], groups


def test_groups_of_one_row_change_nothing():
    (a, b), groups = filmed(np.random.default_rng(0), seeds=3)
    alone, other = method_difference(a, b), method_difference(a, b, groups=np.random.default_rng(1).permutation(len(groups)))
    for name in ("difference", "low", "high", "errors", "p", "equivalence_p", "per_seed"): assert getattr(other, name) == pytest.approx(getattr(alone, name))
    assert (alone.groups, other.groups, other.n) == (None, len(groups), len(groups))
    assert paired_difference(a[0], b[0], groups=range(len(groups))).low == pytest.approx(paired_difference(a[0], b[0]).low)


@pytest.mark.parametrize("seeds", [1, 4])
def test_cluster_errors_agree_with_statsmodels(seeds):
    import statsmodels.api as sm
    (a, b), groups = filmed(np.random.default_rng(0), seeds=seeds)
    keep = np.random.default_rng(1).random(len(groups)) < 0.6            # groups of different sizes
    d = (b * 1.0 - a)[:, keep]
    fit = sm.OLS(d.mean(axis=0), np.ones(keep.sum())).fit(cov_type="cluster", cov_kwds=dict(groups=groups[keep]))
    assert standard_errors(d, groups[keep])[0] == pytest.approx(fit.bse[0])
    assert by_group(d, groups[keep]).mean(axis=1) == pytest.approx(d.mean(axis=1))


@pytest.mark.parametrize("seeds", [1, 3])
def test_clustered_intervals_hold_what_they_promise(seeds):
    rng, held = np.random.default_rng(0), []
    for _ in range(150):
        (a, b), groups = filmed(rng, seeds=seeds)
        held.append([r.low <= 0 <= r.high for r in (method_difference(a, b), method_difference(a, b, groups=groups))])
    rows, clustered = np.mean(held, axis=0)
    assert rows < 0.9 < 0.92 <= clustered


def test_groups_of_the_wrong_length_or_a_single_one():
    with pytest.raises(InputError, match="the group of each test row"): method_difference(["101"], ["111"], groups=[1, 2])
    with pytest.raises(InputError, match="the group of each test row"): paired_difference([1, 0], [1, 1], groups=[1])
    one = method_difference(["0000"], ["1111"], groups=[7] * 4)
    assert one.groups == 1 and one.low < 0 < one.high and one.equivalence_p > 0.05     # one film shows nothing
