"""Variable projection: for given exponents a law is linear in E, A and B, so that two numbers are searched for.

Golub and Pereyra 1973; for scaling laws Czech et al. 2026 (arXiv:2603.22339). Errors are relative, so that the
least squares are those of log-normal noise to first order; coefficients are not negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares, nnls

from jaxlm.study.laws.form import Law
from jaxlm.study.laws.points import Points, Runs, enough, no_law

GRID = np.geomspace(0.05, 2.0, 16)
"""Exponents that a search begins with."""
FLATTEST, STEEPEST = 1e-3, 10.0
"""Exponents beyond which a term is a constant or a step, and they mean nothing."""


def solve(terms: Sequence[Runs], losses: Runs) -> tuple[Float[np.ndarray, "term"], Runs]:
    """(coefficients, relative errors) of the sum of terms nearest to the losses; no coefficient is negative."""
    matrix = np.stack(terms, axis=1) / losses[:, None]
    coefficients, _ = nnls(matrix, np.ones(len(losses)))
    return coefficients, matrix @ coefficients - 1.0


def fit(points: Points, start: Law | None = None, *, floor: bool = True) -> Law:
    """The law of least relative squares.

    `start` is a law to begin from in place of a grid; without `floor` E is 0, which is what a power law by itself
    assumes. Raises UsageError for too few runs, sizes or numbers of tokens, and where losses do not, or
    hardly, fall with both.
    """
    enough(points)
    ones = [np.ones(len(points))] if floor else []
    # Powers of numbers near 1: those of 10^9 parameters would be far from the constant.
    middle = [np.exp(np.mean(np.log(values))) for values in (points.parameters, points.tokens)]
    n, d = points.parameters / middle[0], points.tokens / middle[1]

    def projected(logs: Float[np.ndarray, "2"]) -> tuple[Float[np.ndarray, "term"], Runs]:
        alpha, beta = np.exp(logs)
        return solve([*ones, n**-alpha, d**-beta], points.losses)

    if start is None:
        grid = [np.log([alpha, beta]) for alpha in GRID for beta in GRID]
        first = min(grid, key=lambda logs: float(np.sum(projected(logs)[1] ** 2)))
    else:
        first = np.log([start.alpha, start.beta])
    bounds = np.log([FLATTEST, STEEPEST])
    found = least_squares(
        lambda logs: projected(logs)[1], np.clip(first, *bounds), bounds=bounds, xtol=1e-10, ftol=1e-12, gtol=1e-14
    )
    alpha, beta = np.exp(found.x)
    *constant, a, b = projected(found.x)[0]
    for scale, exponent, name in ((a, alpha, "parameters"), (b, beta, "tokens")):
        if scale <= 0:
            raise no_law(name)
        if exponent <= FLATTEST * (1 + 1e-6):
            raise no_law(name, "hardly fall")
    constant = constant[0] if constant else 0.0
    return Law(
        float(constant),
        float(a * middle[0] ** alpha),
        float(alpha),
        float(b * middle[1] ** beta),
        float(beta),
        points.cost(),
    )


def saturating(flops: Runs, losses: Runs) -> tuple[float, float, float]:
    """(E, K, gamma) of losses E + K / C^gamma on the frontier, found the same way."""
    middle = np.exp(np.mean(np.log(flops)))
    c = flops / middle

    def projected(log: Float[np.ndarray, "1"]) -> tuple[Float[np.ndarray, "2"], Runs]:
        return solve([np.ones(len(c)), c ** -np.exp(log[0])], losses)

    first = min(np.log(GRID), key=lambda log: float(np.sum(projected([log])[1] ** 2)))
    found = least_squares(lambda log: projected(log)[1], [first], bounds=np.log([FLATTEST, STEEPEST]))
    (floor, scale), gamma = projected(found.x)[0], float(np.exp(found.x[0]))
    return float(floor), float(scale * middle**gamma), gamma
