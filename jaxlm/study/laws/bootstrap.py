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
LOST, SCARCE = 0.1, 3.0
"""Draws without a law, and without a frontier, beyond which there are no intervals, as shares of `resamples`."""


@dataclass(frozen=True)
class Fitted:
    """A fit of all runs, and those of what was drawn again."""

    fit: Fit
    again: tuple[Fit, ...]
    without: int = 0
    """Draws that had no fit: intervals know nothing of them, and are too narrow the more there are."""

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
    A frontier has no error for each run: whole runs are drawn, as the noise of a run is one number for all of its
    curve. An interval that is much narrower than the scatter of runs allows is a fit that did not move: Besiroglu
    et al. 2024 (arXiv:2404.10102) found those of approach 3 so.

    A draw may have no fit. Of a law that is evidence: by these errors one of its terms may as well be nothing, and
    intervals of the draws that are left are too narrow. A frontier may be missing only because whole runs were
    drawn, and with them too few sizes or budgets. Both are counted. Raises UsageError as `fit`, and for more than a
    tenth as many draws without a law as were asked for, or more than 3 times as many without a frontier.
    """
    whole = fit(data)
    rng = np.random.default_rng(seed)
    again: list[Fit] = []
    lost = (LOST if isinstance(whole, Law) else SCARCE) * resamples
    without = 0
    while len(again) < resamples:
        try:
            again.append(fit(drawn(data, whole, rng), whole))
        except UsageError as error:
            without += 1
            if without > lost:
                raise _scarce(whole, without, len(again), error) from None
    return Fitted(whole, tuple(again), without)


def _scarce(whole: Fit, without: int, found: int, error: UsageError) -> UsageError:
    """Too few of the draws had a fit."""
    drawn = f"of {without + found} draws {without} had none"
    if isinstance(whole, Law):
        return UsageError(
            f"these runs are too few or too noisy for intervals of a law: {drawn} ({error}): train more sizes and "
            "more numbers of tokens, further apart, or each with several seeds"
        )
    return UsageError(f"these runs are too few for intervals: {drawn} ({error}): train more sizes and budgets")


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
