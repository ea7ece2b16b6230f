"""Intervals hold the truth as often as they say, and agree with scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxlm.evaluate import intervals
from jaxlm.evaluate.clustering import normalized_mutual_information
from jaxlm.evaluate.intervals import around, bootstrap, mean, ratio, share


def within(interval, truth):
    return interval[0] <= truth <= interval[1]


@pytest.fixture
def fewer(monkeypatch):
    """Resamples as few as a simulation of hundreds of intervals can pay."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 30), (1, 30), (15, 30), (30, 30), (997, 1000)])
def test_a_share_is_wilsons(successes, n, level):
    wanted = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(share(successes, n, level), wanted, atol=1e-12)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.75, 0.98])
@pytest.mark.parametrize("n", [50, 300])
def test_shares_are_covered(p, n):
    """Summed over all that may come out, not drawn; the normal interval fails where there are few of one kind."""
    outcomes = np.arange(n + 1)
    chances = stats.binom.pmf(outcomes, n, p)
    covered = chances @ [within(share(int(k), n), p) for k in outcomes]
    assert 0.9 < covered < 0.985
    half = 1.96 * np.sqrt(outcomes / n * (1 - outcomes / n) / n)
    plain = chances @ (np.abs(outcomes / n - p) <= half)
    assert (plain < 0.9) == (n * min(p, 1 - p) < 5.5)


def test_no_items_say_nothing():
    assert share(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no items"):
        mean(np.zeros(0))
    with pytest.raises(ValueError, match="3 successes of 2"):
        share(3, 2)
    with pytest.raises(ValueError, match="a level of 95"):
        share(1, 2, level=95.0)
    with pytest.raises(ValueError, match="a level of 0"):
        mean(np.ones(3), level=0.0)


def test_a_mean_is_as_scipy_has_it():
    values = np.random.default_rng(0).exponential(size=80)
    wanted = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, vectorized=True, rng=np.random.default_rng(1)
    ).confidence_interval
    width = wanted.high - wanted.low
    np.testing.assert_allclose(mean(values), wanted, atol=0.04 * width)
    np.testing.assert_allclose(bootstrap(np.mean, values, resamples=10_000), wanted, atol=0.04 * width)
    assert abs(mean(values, level=0.9)[1] - wanted.high) > 0.08 * width


def test_means_are_covered(fewer):
    """Of an exponential distribution, as skewed as losses are. Of five draws the interval is too narrow."""
    rng = np.random.default_rng(2)
    covered = np.mean([within(mean(rng.exponential(size=120), seed=i), 1.0) for i in range(800)])
    assert 0.9 < covered < 0.98
    assert np.mean([within(mean(rng.exponential(size=5), seed=i), 1.0) for i in range(800)]) < 0.86


def test_ratios_are_covered(fewer):
    """Nats and tokens of documents of different lengths, of which the longer are harder."""

    def documents(n):
        tokens = rng.integers(5, 200, n)
        return rng.normal(tokens * (1 + tokens / 100), 5.0), tokens.astype(float)

    rng = np.random.default_rng(3)
    nats, tokens = documents(1_000_000)
    truth = nats.sum() / tokens.sum()
    covered = np.mean([within(ratio(*documents(60), seed=i), truth) for i in range(400)])
    assert 0.9 < covered < 0.98
    nats, tokens = documents(60)
    assert abs((nats / tokens).mean() - truth) > 0.2


def test_groups_are_drawn_whole(fewer):
    """Ten items of each group that are nearly the same: drawn one by one they seem to say more than they do."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(40), 10)

    def values():
        return rng.normal(size=40)[groups] + 0.1 * rng.normal(size=400)

    drawn = [values() for _ in range(300)]
    assert 0.9 < np.mean([within(mean(one, seed=i, groups=groups), 0.0) for i, one in enumerate(drawn)]) < 0.98
    assert np.mean([within(mean(one, seed=i), 0.0) for i, one in enumerate(drawn)]) < 0.6


def test_groups_may_have_any_names_and_order():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 12, 90)
    values = rng.normal(size=12)[groups] + rng.normal(size=90)
    named = np.array([f"paragraph {(7 * one) % 13}" for one in groups])
    order = rng.permutation(90)
    got = mean(values, groups=groups)
    assert mean(values[order], groups=groups[order]) == pytest.approx(got, abs=1e-12)
    np.testing.assert_allclose(mean(values, groups=named), got, atol=0.05)
    np.testing.assert_allclose(bootstrap(np.mean, values, groups=named, resamples=4_000), got, atol=0.05)


def test_medians_are_covered():
    """A statistic that is no mean, of normal draws."""
    rng = np.random.default_rng(6)
    found = [bootstrap(np.median, rng.normal(size=60), seed=i, resamples=200) for i in range(300)]
    assert 0.9 < np.mean([within(one, 0.0) for one in found]) < 0.98


def test_correlations_are_those_of_pairs():
    """Two arrays are drawn together: apart they would have nothing to do with one another."""
    rng = np.random.default_rng(7)
    one = rng.normal(size=100)
    other = one + 0.5 * rng.normal(size=100)
    low, high = bootstrap(lambda a, b: stats.pearsonr(a, b).statistic, one, other)
    assert 0.75 < low < stats.pearsonr(one, other).statistic < high < 0.95
    with pytest.raises(ValueError, match="arrays of 3, 4 items"):
        bootstrap(np.mean, np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="groups of 2 items, and there are 3"):
        bootstrap(np.mean, np.ones(3), groups=np.ones(2))


def test_memory_does_not_decide(monkeypatch):
    values = np.random.default_rng(8).normal(size=33)
    wanted = mean(values), bootstrap(np.mean, values)
    assert wanted != (mean(values, seed=1), bootstrap(np.mean, values, seed=1))
    monkeypatch.setattr(intervals, "AT_ONCE", 100)
    assert (mean(values), bootstrap(np.mean, values)) == wanted


def test_what_is_not_finite():
    """A forbidden token makes a loss infinite; a rank correlation of one value is none."""
    low, high = mean(np.array([1.0] * 20 + [math.inf]))
    assert (low, high) == (1.0, math.inf)
    assert all(map(math.isnan, bootstrap(lambda a: math.nan, np.ones(3))))
    with pytest.raises(ValueError, match="not above 0"):
        ratio(np.ones(3), np.array([1.0, 0.0, 1.0]))


def test_answers_may_be_right_or_wrong():
    right = np.arange(200) % 4 == 0
    np.testing.assert_allclose(mean(right), share(50, 200), atol=0.012)


def test_where_all_are_alike():
    """None or all right: of as many items, or groups, a share's interval, never a point."""
    groups = np.repeat(np.arange(30), 8)
    for value in (0, 1):
        values = np.full(240, float(value))
        assert mean(values) == share(240 * value, 240)
        assert mean(values, groups=groups) == share(30 * value, 30)
        assert mean(values == 1, level=0.9, groups=groups) == share(30 * value, 30, 0.9)
    low, high = mean(np.zeros(240), groups=groups)
    assert (low, high > 0.1) == (0, True)
    # One that is right is enough for the bootstrap; a loss is no share.
    one = np.arange(240) == 7
    assert mean(one, groups=groups) == ratio(one, np.ones(240), groups=groups)
    assert ratio(np.zeros(240), np.ones(240)) == (0, 0)


def test_what_resampling_makes_larger():
    """Mutual information of groupings: the truth is the mean over many samples of as many items."""

    def sample():
        gold = rng.integers(0, 12, 250)
        return gold, np.where(rng.random(250) < 0.4, rng.integers(0, 12, 250), gold)

    rng = np.random.default_rng(9)
    truth = np.mean([normalized_mutual_information(*sample()) for _ in range(300)])
    drawn = [sample() for _ in range(100)]
    given = {"resamples": 100}
    found = [around(normalized_mutual_information, *one, seed=i, **given) for i, one in enumerate(drawn)]
    assert 0.85 < np.mean([within(one, truth) for one in found]) < 0.99
    plain = [bootstrap(normalized_mutual_information, *one, seed=i, **given) for i, one in enumerate(drawn)]
    assert np.mean([within(one, truth) for one in plain]) < 0.7
