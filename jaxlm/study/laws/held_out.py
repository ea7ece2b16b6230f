"""Does a law hold where it was not fitted? The largest budget's runs are left out and predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.study.laws.bootstrap import RESAMPLES, Fitted, Given, bootstrap
from jaxlm.study.laws.envelope import envelope
from jaxlm.study.laws.form import Fit, Frontier, Law
from jaxlm.study.laws.isoflop import minima
from jaxlm.study.laws.points import Points

LEAP = 3.0
"""By so many times the largest FLOPs of an envelope exceed those that are fitted."""


@dataclass(frozen=True)
class Check:
    """Predicted against observed losses of the largest budget."""

    flops: float
    """Of that budget, the largest that was left out."""
    beyond: float
    """How many times the largest budget that was fitted."""
    predicted: float
    """Mean loss, in the runs' unit."""
    observed: float
    error: float
    """Mean of predicted / observed - 1."""
    interval: tuple[float, float]
    """Of the error, by what the law may be; the noise of the runs that were left out is not in it."""
    fitted: Fitted


def check(fit: Callable[..., Fit], data: Given, resamples: int = RESAMPLES, seed: int = 0) -> Check:
    """Fits all but the largest budget: of curves, what lies below a third of the envelope's FLOPs.

    A law predicts each run that was left out, a frontier the least loss that they reach. Raises UsageError where
    the others are too few.
    """
    kept, left = split(data)
    try:
        fitted = bootstrap(fit, kept, resamples, seed)
    except UsageError as error:
        raise UsageError(f"without the largest budget: {error}") from None
    if isinstance(fitted.fit, Frontier) and isinstance(data, Points):
        left = least(left)

    def ratio(one: Fit) -> float:
        return float(np.mean(predicted(one, left) / left.losses) - 1)

    largest = max(float(np.max(one.flops)) for one in ([kept] if isinstance(kept, Points) else kept))
    flops = float(np.max(left.flops))
    return Check(
        flops,
        flops / largest,
        float(np.mean(predicted(fitted.fit, left))),
        float(np.mean(left.losses)),
        ratio(fitted.fit),
        fitted.interval(ratio),
        fitted,
    )


def split(data: Given) -> tuple[Given, Points]:
    """What is fitted and what is left out. Raises UsageError where there is one budget."""
    if not isinstance(data, Points):
        flops, parameters, tokens, losses = envelope(data)
        beyond = flops > flops.max(initial=0.0) / LEAP
        cut = [curve[curve.flops <= flops.max(initial=0.0) / LEAP] for curve in data]
        names = (parameters[beyond], tokens[beyond], flops[beyond], losses[beyond])
        return [curve for curve in cut if len(curve)], Points(*names)
    numbers = data.budgets()
    last = numbers == numbers.max()
    if last.all():
        raise UsageError("all runs have one budget of FLOPs: a law needs several")
    return data[~last], data[last]


def least(points: Points) -> Points:
    """The lowest point of the parabola of one budget's runs, or the best of them where it has none."""
    lowest = minima(points)
    if len(lowest) == 1:
        return Points(*lowest.T)
    return points[[int(np.argmin(points.losses))]]


def predicted(fit: Fit, points: Points) -> np.ndarray:
    """The loss of each point: of a law by its parameters and tokens, of a frontier by its FLOPs."""
    if isinstance(fit, Law):
        return fit.loss(points.parameters, points.tokens)
    return np.array([fit.optimum(flops).loss for flops in points.flops])
