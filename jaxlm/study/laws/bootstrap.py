"""Intervals: the same fit of errors, or of whole runs, drawn again with replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.study.laws.form import Fit, Law
from jaxlm.study.laws.points import Points

Given = TypeVar("Given", Points, Sequence[Points])
"""Points, or the curves of an envelope."""
LEVEL = 0.9
RESAMPLES = 200
NUMBERS = 5
"""Of a law."""


@dataclass(frozen=True)
class Fitted:
    """A fit of all runs, and those of what was drawn again."""

    fit: Fit
    again: tuple[Fit, ...]

    def interval(self, value: Callable[[Fit], float], level: float = LEVEL) -> tuple[float, float]:
        """What lies between the percentiles that leave (1 - level) / 2 on either side."""
        values = [value(one) for one in self.again]
        low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)


def bootstrap(fit: Callable[..., Fit], data: Given, resamples: int = RESAMPLES, seed: int = 0) -> Fitted:
    """Fits the runs (points, or curves of an envelope), and `resamples` times what they might have been.

    Of a law of all runs, its errors of log L are drawn for every run anew (Efron and Tibshirani 1993, section 9.5):
    all sizes and budgets stay. Simulated, intervals of 90 % hold the truth in 86 to 93 of 100 studies of sizes
    within budgets; of ladders by ratios in 84 to 92, by approach 3 in 75 to 83 (`experiments/benchmarks/laws.py`).
    A frontier has no error
    for each run: whole runs are drawn, as the noise of a run is one number for all of its curve. An interval that
    is much narrower than the scatter of runs allows is a fit that did not move: Besiroglu et al. 2024
    (arXiv:2404.10102) found those of approach 3 so. Raises UsageError as `fit`, and where most draws cannot be
    fitted.
    """
    whole = fit(data)
    rng = np.random.default_rng(seed)
    again: list[Fit] = []
    for _ in range(4 * resamples):
        if len(again) == resamples:
            break
        try:
            again.append(fit(drawn(data, whole, rng), whole))
        except UsageError:  # too few sizes or budgets among those drawn: no fit, and no evidence
            continue
    if len(again) < resamples:
        raise UsageError(f"{len(data)} runs are too few for intervals: draws of them have too few sizes or budgets")
    return Fitted(whole, tuple(again))


def drawn(data: Any, whole: Fit, rng: np.random.Generator) -> Any:
    """As many runs as there are: the same with errors of a law, else each one of them."""
    if isinstance(whole, Law):
        expected = whole.loss(data.parameters, data.tokens)
        errors = np.log(data.losses / expected)
        # A law's five numbers take their share of the scatter.
        errors = (errors - errors.mean()) * np.sqrt(len(data) / (len(data) - NUMBERS))
        losses = expected * np.exp(rng.choice(errors, len(data)))
        return Points(data.parameters, data.tokens, data.flops, losses)
    chosen = rng.integers(0, len(data), len(data))
    return data[chosen] if isinstance(data, Points) else [data[i] for i in chosen]
