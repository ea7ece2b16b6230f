"""Verdicts beside scipy, and how often they are wrong."""

import numpy as np
import pytest
from scipy import stats

from experiments.benchmarks.studies import EFFECT, verdicts
from jaxlm.study.statistics import detectable, holm, judge, paired, power, summary

RNG = np.random.default_rng(0)


def test_a_pair_is_scipys():
    a, b = RNG.normal(size=(2, 7))
    wanted = stats.ttest_rel(a, b)
    found = paired(a, b)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-12)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    # a test that does not pair is another number
    assert abs(found.p - stats.ttest_ind(a, b).pvalue) > 1e-3


def test_an_interval_is_scipys():
    values = RNG.normal(size=5)
    wanted = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (summary(values).low, summary(values).high) == pytest.approx(wanted, rel=1e-12)


def test_holm_by_hand():
    # the smallest times four, the next times three, ..., never falling, never above one
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_power_by_simulation():
    rng = np.random.default_rng(1)
    for effect, n in ((2.0, 5), (2.0, 3), (0.0, 4), (1.0, 6)):
        p = stats.ttest_1samp(rng.normal(effect, 1, (4000, n)), 0, axis=1).pvalue
        assert power(effect, n) == pytest.approx(np.mean(p < 0.05), abs=0.025)


@pytest.mark.parametrize(("n", "level"), [(2, 0.05 / 3), (3, 0.05), (5, 0.01), (30, 0.05)])
def test_the_detectable_effect_has_its_power(n, level):
    assert power(detectable(0.3, n, level) / 0.3, n, level) == pytest.approx(0.8, abs=1e-6)


def test_verdicts():
    noise = np.array([0.01, -0.02, 0.015, -0.005, 0.0])
    base = np.zeros(5)
    pairs = {"up": paired(noise + 1, base), "down": paired(noise - 1, base), "none": paired(noise, base)}
    verdicts = {name: one.verdict for name, one in judge(pairs, "lower").items()}
    assert verdicts == {"up": "worse", "down": "better", "none": "inside noise"}
    assert judge(pairs, "higher")["up"].verdict == "better"


def test_arms_that_failed_still_count():
    """A crash of two arms must not turn noise into a finding."""
    values = np.array([0.9, 1.4, 0.2, 0.7, 0.6])
    pair = paired(values, np.zeros(5))
    assert 0.05 / 3 < pair.p < 0.05
    assert judge({"arm": pair}, "lower")["arm"].verdict == "worse"
    found = judge({"arm": pair}, "lower", planned=3)["arm"]
    assert found.verdict == "inside noise"
    assert found.corrected == pytest.approx(3 * pair.p)
    assert found.detectable == detectable(pair.sd, 5, 0.05 / 3)


@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (2, 5), (4, 5)])
def test_how_often_a_verdict_is_wrong(arms, seeds):
    """Five in a hundred studies without any difference, whatever their arms: without Holm's correction more."""
    rng = np.random.default_rng([7, arms, seeds])
    wrong = np.mean([set(verdicts(rng, arms, seeds, 0.0)) != {"inside noise"} for _ in range(400)])
    assert 0.015 <= wrong <= 0.095


def test_how_often_an_effect_is_found():
    """Two standard deviations of the paired difference from five seeds; arms that do not share a draw hide it."""
    rng = np.random.default_rng(11)
    found = np.mean([verdicts(rng, 2, 5, EFFECT) == ["better"] for _ in range(200)])
    assert found >= 0.85
    assert found == pytest.approx(power(2.0, 5), abs=0.06)
    unpaired = [
        stats.ttest_ind(*(4 * rng.normal(size=(2, 5)) + rng.normal(size=(2, 5)) + [[EFFECT], [0]])).pvalue
        for _ in range(200)
    ]
    assert np.mean(np.array(unpaired) < 0.05) < 0.4


def test_one_seed_is_not_tested():
    found = judge({"arm": paired(np.array([5.0]), np.array([1.0]))}, "lower")["arm"]
    assert (found.verdict, found.corrected, found.detectable, found.paired.p) == ("not tested", None, None, None)


def test_the_same_difference_in_every_seed():
    same = judge({"arm": paired(np.ones(3), np.ones(3))}, "lower")["arm"]
    assert (same.verdict, same.paired.p) == ("inside noise", 1.0)
    assert judge({"arm": paired(np.full(3, 2.0), np.ones(3))}, "lower")["arm"].verdict == "worse"
