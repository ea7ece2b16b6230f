"""Chinchilla's third approach: a robust fit of the law's five numbers at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import OptimizeResult, minimize

from jaxlm.study.laws.form import Law
from jaxlm.study.laws.points import Points, Runs, enough, no_law
from jaxlm.study.laws.projection import FLATTEST

DELTA = 1e-3
"""Errors of log L beyond which a run counts by their size and no longer by its square."""
STARTS = (np.arange(0, 30, 5.0), np.arange(0, 2.5, 0.5), np.arange(0, 30, 5.0), np.arange(0, 2.5, 0.5))
FLOORS = np.arange(-1, 1.5, 0.5)
"""Starts of log A, alpha, log B, beta, and of log E: those of the paper."""
REFINED, SOME = 12, 100
"""The best starts, from which so many steps are taken; all others are only looked at."""
VANISHED = 1e-6
"""A term that falls by less than this share of the loss over all runs is none."""
TURNS, MOST = 2, 500
"""Searches from the best of them, each in coordinates of its own, and their steps at most."""
Numbers = Float[np.ndarray, "5"]


def fit(points: Points, start: Law | None = None, *, delta: float = DELTA) -> Law:
    """The least sum of Huber's losses of log L - log of the law (Hoffmann et al. 2022, equation 3).

    The law is a log-sum-exp of log A - alpha log N, log B - beta log D and log E. A and B are searched for at the
    middle of all runs, where they hardly depend on their exponents. The paper's L-BFGS stands in for BFGS where
    there are too many numbers for a square matrix; of five there is one. The sum is not divided by the number of
    runs: Besiroglu et al. 2024 (arXiv:2404.10102) found the published search to have ended early, the mean being
    so small. `start` is a law to begin from in place of the grid. Raises UsageError as `projection.fit`: the search
    itself would return a law that rises with tokens where losses do.
    """
    enough(points)
    logs = np.log([points.parameters, points.tokens])
    middle = logs.mean(axis=1)
    n, d = logs - middle[:, None]
    target = np.log(points.losses)

    def objective(theta: Numbers) -> tuple[float, Numbers]:
        """The sum in units of delta squared, and its gradient."""
        total, slopes = model(theta, n, d)
        value, slope = huber((total - target) / delta)
        return value, slopes @ (slope / delta)

    if start is None:
        starts = grid(middle)
        values = np.array([objective(theta)[0] for theta in starts])
        begun = [_search(objective, theta, SOME) for theta in starts[np.argsort(values)[:REFINED]]]
        best = min(begun, key=lambda one: one.fun).x
    else:
        a, b = np.log([start.A, start.B]) - np.array([start.alpha, start.beta]) * middle
        best = np.array([a, start.alpha, b, start.beta, np.log(start.E)])
    for _ in range(TURNS):
        # In these coordinates the squares are round: in the law's own a thousand steps do not reach the end.
        slopes = model(best, n, d)[1]
        turn = np.linalg.inv(np.linalg.cholesky(slopes @ slopes.T + 1e-12 * np.eye(5))).T * delta

        def turned(z: Numbers, origin: Numbers = best, turn: np.ndarray = turn) -> tuple[float, Numbers]:
            value, slope = objective(origin + turn @ z)
            return value, turn.T @ slope

        best = best + turn @ _search(turned, np.zeros(5), MOST).x
    _refuse_none(best, n, d, middle)
    a, alpha, b, beta, e = best
    a, b = np.exp([a + alpha * middle[0], b + beta * middle[1]])
    return Law(float(np.exp(e)), float(a), float(alpha), float(b), float(beta), points.cost())


def _refuse_none(theta: Numbers, n: Runs, d: Runs, middle: Float[np.ndarray, "2"]) -> None:
    """Raises UsageError for numbers that are no law: losses must fall with both, by a power that has a scale."""
    a, alpha, b, beta, _ = theta
    lowest = np.exp(np.min(model(theta, n, d)[0]))
    terms = ((a, alpha, n, middle[0], "parameters"), (b, beta, d, middle[1], "tokens"))
    for log, exponent, values, at, name in terms:
        first, last = np.exp(log - exponent * np.array([values.min(), values.max()]))
        if not first - last > VANISHED * lowest:
            raise no_law(name)
        if exponent <= FLATTEST:
            raise no_law(name, "hardly fall")
        if log + exponent * at > np.log(np.finfo(np.float64).max):
            raise no_law(name, "fall in a single step")


def model(theta: Numbers, n: Runs, d: Runs) -> tuple[Runs, Float[np.ndarray, "5 run"]]:
    """The logarithm of the law at log sizes and tokens, and its slopes by log A, alpha, log B, beta and log E."""
    a, alpha, b, beta, e = theta
    first, second = a - alpha * n, b - beta * d
    total = np.logaddexp(np.logaddexp(first, second), e)
    first, second = np.exp(first - total), np.exp(second - total)
    return total, np.stack([first, -first * n, second, -second * d, np.exp(e - total)])


def _search(objective: Callable, start: Numbers, most: int) -> OptimizeResult:
    return minimize(objective, start, jac=True, method="BFGS", options={"maxiter": most, "gtol": 1e-7})


def huber(errors: Float[np.ndarray, "run"]) -> tuple[float, Float[np.ndarray, "run"]]:
    """The sum of squares / 2, beyond 1 of |error| - 1/2, and its slopes."""
    size = np.abs(errors)
    return float(np.sum(np.where(size <= 1, errors**2 / 2, size - 0.5))), np.clip(errors, -1, 1)


def grid(middle: Float[np.ndarray, "2"]) -> Float[np.ndarray, "start 5"]:
    """The paper's starts, A and B moved to the middle of log N and log D."""
    starts = np.array(list(itertools.product(*STARTS, FLOORS)))
    starts[:, 0] -= starts[:, 1] * middle[0]
    starts[:, 2] -= starts[:, 3] * middle[1]
    return starts
