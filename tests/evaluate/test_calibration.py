"""Calibration, against scikit-learn's parts and models whose calibration is known."""

import numpy as np
import pytest
from scipy.special import softmax

from jaxlm.evaluate.calibration import (
    brier,
    expected_calibration_error,
    negative_log_likelihood,
    normalized,
    reliability,
    temperature,
)

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(4000, 5)) * 2


def drawn(scores, rng=RNG):
    """Labels as the scores' own probabilities say."""
    return (softmax(scores, axis=1).cumsum(axis=1) < rng.random((len(scores), 1))).sum(axis=1)


LABELS = drawn(SCORES)


def test_scikit_learn_says_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    p = softmax(SCORES, axis=1)
    np.testing.assert_allclose(np.exp(normalized(SCORES)), p, atol=1e-12)
    assert negative_log_likelihood(normalized(SCORES), LABELS) == pytest.approx(
        metrics.log_loss(LABELS, p, labels=range(5)), abs=1e-9
    )
    assert brier(p, LABELS).mean() == pytest.approx(
        metrics.brier_score_loss(LABELS, p, labels=range(5), scale_by_half=False), abs=1e-9
    )
    two = p[:, :2] / p[:, :2].sum(axis=1, keepdims=True)
    second = (LABELS == 1).astype(int)
    assert brier(two, second).mean() / 2 == pytest.approx(metrics.brier_score_loss(second, two[:, 1]), abs=1e-9)


@pytest.mark.parametrize(("kind", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_bins_are_those_of_scikit_learn(kind, strategy):
    """Of the confidence as the probability of being right; of quantiles to the item that lies on an edge."""
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    p = softmax(SCORES, axis=1)
    table = reliability(p, LABELS, 10, kind)
    right, sure = curve(p.argmax(1) == LABELS, p.max(1), n_bins=10, strategy=strategy)
    atol = 1e-9 if kind == "width" else 4e-3
    np.testing.assert_allclose([one.accuracy for one in table], right, atol=atol)
    np.testing.assert_allclose([one.confidence for one in table], sure, atol=atol)
    assert sum(one.items for one in table) == len(p)
    assert all(one.low <= one.confidence <= one.high for one in table)
    if kind == "mass":
        assert {one.items for one in table} == {400}


def test_the_error_by_hand():
    """Two bins: 0.9 and 0.7 of which all are right, 0.4 of which half are."""
    p = np.array([[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3]])
    table = reliability(p, np.array([0, 0, 0, 1]), 2)
    assert [(one.items, one.accuracy) for one in table] == [(2, 0.5), (2, 1.0)]
    assert expected_calibration_error(table) == pytest.approx((2 * 0.1 + 2 * 0.2) / 4)
    assert reliability(np.array([[0.5, 0.5]]), np.array([0]), 2)[0].high == 0.5


@pytest.mark.parametrize("kind", ["width", "mass"])
def test_what_is_calibrated_and_what_is_not(kind):
    def error(scale):
        return expected_calibration_error(reliability(softmax(scale * SCORES, axis=1), LABELS, 15, kind))

    assert error(1.0) < 0.02
    assert min(error(2.0), error(0.5)) > 0.08


@pytest.mark.parametrize("wanted", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(wanted):
    """Scores that were multiplied by it; judged on others than it was fitted to."""
    found = temperature(wanted * SCORES[:2000], LABELS[:2000])
    assert found == pytest.approx(wanted, rel=0.06)
    others, labels = wanted * SCORES[2000:], LABELS[2000:]
    after = expected_calibration_error(reliability(softmax(others / found, axis=1), labels))
    assert after < 0.035
    if wanted != 1:
        assert expected_calibration_error(reliability(softmax(others, axis=1), labels)) > 3 * after
    loss = [
        negative_log_likelihood(normalized(wanted * SCORES[:2000] / t), LABELS[:2000])
        for t in (found / 1.01, found, found * 1.01)
    ]
    assert loss[1] < min(loss[0], loss[2])


def test_scores_may_be_large():
    assert np.isfinite(normalized(np.array([[1e4, -1e4, 0.0]]))).all()
