"""Runs that were never trained: losses of a known law with the noise of seeds, to test fits with."""

from __future__ import annotations

import numpy as np

from jaxlm.study.laws.form import PUBLISHED, Law
from jaxlm.study.laws.points import Points

BUDGETS = tuple(float(one) for one in np.geomspace(6e18, 3e21, 7))
"""FLOPs of Hoffmann et al. 2022, section 3.2: nine of them there, from 6e18 to 3e21."""
NOISE = 0.007
"""Log-normal, as far as seeds of one experiment lie apart: 0.5 to 1 %."""


def isoflops(
    law: Law = PUBLISHED,
    budgets: tuple[float, ...] = BUDGETS,
    sizes: int = 9,
    width: float = 8.0,
    drift: float = 0.0,
) -> Points:
    """Noise-free runs of `sizes` models a budget, from 1 / width to width times the best one.

    With `drift` the middle lies below the best model at the first budget and above it at the last, by factors of
    exp(drift): a ladder that was chosen by a wrong guess of the exponent.
    """
    parameters, flops = [], []
    for budget, shift in zip(budgets, np.linspace(-drift, drift, len(budgets)), strict=True):
        middle = law.optimum(budget).parameters * np.exp(shift)
        parameters.append(middle * np.geomspace(1 / width, width, sizes))
        flops.append(np.full(sizes, budget))
    n, c = np.concatenate(parameters), np.concatenate(flops)
    d = law.cost.tokens(c, n)
    return Points(n, d, c, law.loss(n, d))


def ladder(law: Law = PUBLISHED, sizes: int = 7, ratios: tuple[float, ...] = (5, 10, 20, 40, 80, 160)) -> Points:
    """Noise-free runs of every size (from 5e7 to 5e9 parameters) on as many tokens a parameter."""
    n = np.repeat(np.geomspace(5e7, 5e9, sizes), len(ratios))
    d = n * np.tile(ratios, sizes)
    return Points(n, d, law.cost.flops(n, d), law.loss(n, d))


def curves(law: Law = PUBLISHED, sizes: int = 12, evaluations: int = 60) -> list[Points]:
    """Noise-free curves of training, each as if its schedule ended at every evaluation."""
    found = []
    for n in np.geomspace(2e7, 1e10, sizes):
        d = np.geomspace(1, 400, evaluations) * n
        n = np.full(evaluations, n)
        found.append(Points(n, d, law.cost.flops(n, d), law.loss(n, d)))
    return found


def noisy(points: Points, rng: np.random.Generator, noise: float = NOISE) -> Points:
    """The same runs with other seeds."""
    losses = points.losses * np.exp(noise * rng.standard_normal(len(points)))
    return Points(points.parameters, points.tokens, points.flops, losses)


def permuted(points: Points, rng: np.random.Generator) -> Points:
    """The same losses with the tokens of other runs: a control, from which no law may be found."""
    tokens = rng.permutation(points.tokens)
    return Points(points.parameters, tokens, points.flops * tokens / points.tokens, points.losses)
