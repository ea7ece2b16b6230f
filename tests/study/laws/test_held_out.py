"""The largest budget's runs, left out and predicted."""

import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.study.laws import PUBLISHED, Points, check, envelope, isoflop, projection, simulate
from jaxlm.study.laws.held_out import split


def test_the_largest_budget_is_left_out():
    points = simulate.isoflops()
    kept, left = split(points)
    assert len(left) == 9
    assert left.flops.min() == max(simulate.BUDGETS) > kept.flops.max()
    curves, beyond = split(simulate.curves())
    assert max(curve.flops.max() for curve in curves) <= beyond.flops.max() / 3 < beyond.flops.min()


def test_a_law_without_noise_predicts_what_it_has_not_seen():
    found = check(projection.fit, simulate.isoflops(), 20)
    assert abs(found.error) < 1e-6
    assert found.beyond == pytest.approx(simulate.BUDGETS[-1] / simulate.BUDGETS[-2])
    assert found.predicted == pytest.approx(found.observed)


def test_frontiers_predict_the_least_loss():
    assert abs(check(isoflop.fit, simulate.isoflops(), 20).error) < 1e-3
    assert abs(check(envelope.fit, simulate.curves(), 20).error) < 2e-3


def test_a_largest_budget_off_the_law_shows():
    points = simulate.noisy(simulate.isoflops(), np.random.default_rng(0), 0.003)
    losses = np.where(points.flops == points.flops.max(), 1.03 * points.losses, points.losses)
    honest = check(projection.fit, points, 60)
    spoiled = check(projection.fit, Points(points.parameters, points.tokens, points.flops, losses), 60)
    assert honest.interval[0] < 0.004
    assert spoiled.interval[1] < -0.02
    assert spoiled.error == pytest.approx((1 + honest.error) / 1.03 - 1)


def test_losses_of_other_runs_hold_no_law():
    truth = simulate.isoflops()
    with pytest.raises(UsageError, match="losses do not fall with parameters"):
        check(projection.fit, Points(truth.parameters, truth.tokens, truth.flops, truth.losses[::-1]), 20)


def test_one_budget_has_nothing_to_leave_out():
    points = simulate.isoflops(budgets=(1e20,))
    with pytest.raises(UsageError, match="one budget"):
        check(projection.fit, points, 20)
    with pytest.raises(UsageError, match="without the largest budget"):
        check(isoflop.fit, simulate.isoflops(budgets=simulate.BUDGETS[:3]), 20)
    assert PUBLISHED.optimum(1e20).loss > 0
