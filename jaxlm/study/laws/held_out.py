"""Does a law hold where it was not fitted? The largest budget's runs are left out and predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.study.laws import isoflop
from jaxlm.study.laws.bootstrap import RESAMPLES, Fitted, Given, bootstrap
from jaxlm.study.laws.form import Fit, Law
from jaxlm.study.laws.points import Points, join


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
    """Fits all but the largest budget.

    A law predicts each run that was left out, a frontier the least loss that they reach. Raises UsageError where
    the others are too few.
    """
    kept, left = split(data)
    try:
        fitted = bootstrap(fit, kept, resamples, seed)
    except UsageError as error:
        raise UsageError(f"without the largest budget: {error}") from None
    points = left if isinstance(left, Points) else join([one[-1:] for one in left])

    def ratio(one: Fit) -> float:
        predicted, observed = compared(one, points)
        return float(np.mean(predicted / observed) - 1)

    predicted, observed = compared(fitted.fit, points)
    largest = max(float(np.max(one.flops)) for one in ([kept] if isinstance(kept, Points) else kept))
    flops = float(np.max(points.flops))
    return Check(
        flops,
        flops / largest,
        float(np.mean(predicted)),
        float(np.mean(observed)),
        ratio(fitted.fit),
        fitted.interval(ratio),
        fitted,
    )


def split(data: Given) -> tuple[Given, Given]:
    """The runs but for those of the largest budget, and those. Raises UsageError where there is one budget."""
    ends = data if isinstance(data, Points) else join([one[-1:] for one in data])
    numbers = ends.budgets()
    last = numbers == numbers.max()
    if last.all():
        raise UsageError("all runs have one budget of FLOPs: a law needs several")
    if isinstance(data, Points):
        return data[~last], data[last]
    return _some(data, ~last), _some(data, last)


def _some(curves: Sequence[Points], chosen: np.ndarray) -> list[Points]:
    return [curve for curve, one in zip(curves, chosen, strict=True) if one]


def compared(fit: Fit, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, observed) losses of runs of one budget."""
    if isinstance(fit, Law):
        return fit.loss(points.parameters, points.tokens), points.losses
    flops = float(np.exp(np.mean(np.log(points.flops))))
    lowest = isoflop.minima(points)
    least = lowest[0, 3] if len(lowest) == 1 else points.losses.min()
    return np.array([fit.optimum(flops).loss]), np.array([least])
