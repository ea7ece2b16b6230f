"""Chinchilla's second approach: a parabola over sizes for each budget, and a line through their lowest points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxlm.config.errors import UsageError
from jaxlm.study.laws.form import Frontier, Power
from jaxlm.study.laws.points import Points, Runs
from jaxlm.study.laws.projection import saturating

BUDGETS = 3
"""The least number of budgets from which losses of others follow."""
EQUAL = 1.05
"""Runs of a budget may lie so far apart in FLOPs: whole steps make one percent, and where FLOPs rise by this factor
from the smallest size to the largest, the best one is found 2 % too large (by 1.25, 11 %)."""


def fit(points: Points, start: Frontier | None = None) -> Frontier:
    """Powers through the optima of all budgets (Hoffmann et al. 2022, section 3.2); `start` is not needed.

    It is biased even without noise: a loss of two powers is no parabola, so that the lowest point of one lies
    elsewhere, the more so the wider and the less centered the sizes of a budget are (Czech et al. 2026,
    arXiv:2603.22339). Raises UsageError where fewer than 3 budgets have a lowest point among 3 sizes, and for a
    budget of unequal FLOPs.
    """
    lowest = minima(points)
    if len(lowest) < BUDGETS:
        raise UsageError(
            f"{len(lowest)} budgets have 3 sizes with a lowest loss between them, and {BUDGETS} are needed: "
            "train more sizes on the same FLOPs"
        )
    parameters, tokens, flops, losses = lowest.T
    return Frontier(Power.through(flops, parameters), Power.through(flops, tokens), *saturating(flops, losses))


def minima(points: Points) -> Float[np.ndarray, "budget 4"]:
    """N, D, C and loss where the parabola of each budget is lowest; budgets whose parabola has no such place, or
    outside of their sizes, are left out. Raises UsageError for one whose FLOPs are not equal: a larger model that
    is also trained on more FLOPs looks better than it is.
    """
    numbers, found = points.budgets(), []
    for budget in np.unique(numbers):
        own = points[numbers == budget]
        if own.sizes() < 3:
            continue
        least, most = own.flops.min(), own.flops.max()
        if most > EQUAL * least:
            raise UsageError(
                f"{len(own)} runs from {least:.4g} to {most:.4g} FLOPs, {most / least:.3g} times as many, are no "
                f"budget of equal FLOPs ({EQUAL:g} times at most): train all sizes of a budget on the same FLOPs, "
                "leave out some, or fit a law, by projection"
            )
        flops = float(np.exp(np.mean(np.log(own.flops))))
        parameters = lowest(own.parameters, own.losses)
        tokens = lowest(own.tokens, own.losses)
        if parameters is not None and tokens is not None:
            found.append((parameters[0], tokens[0], flops, parameters[1]))
    return np.array(found).reshape(-1, 4)


def lowest(values: Runs, losses: Runs) -> tuple[float, float] | None:
    """(place, loss) of the least of a parabola over log values; None if it has none within their range."""
    logs = np.log(values)
    middle = logs.mean()
    square, line, constant = np.polyfit(logs - middle, losses, 2)
    if square <= 0:
        return None
    place = -line / (2 * square)
    if not logs.min() <= place + middle <= logs.max():
        return None
    return float(np.exp(place + middle)), float(constant + line * place / 2)
