"""What differences between arms can be told from their seeds.

Arms are paired by seed: the same seed draws the same initial parameters and rows for each, so that what is due to
the draw cancels in the difference. Sources: Student's t for pairs; Holm 1979 (Scandinavian Journal of Statistics 6,
65-70); the power of the t test by the noncentral distribution (Cohen 1988, chapter 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

LEVEL = 0.05
"""Probability that a study without any difference calls some arm different."""
POWER = 0.8
"""Probability of finding the minimum detectable effect."""
Verdict = Literal["baseline", "better", "worse", "inside noise", "not tested"]


@dataclass(frozen=True)
class Summary:
    """Values of one arm over its seeds."""

    n: int
    mean: float
    sd: float | None
    """None of one value."""
    low: float | None
    high: float | None
    """95 % interval of the mean, by Student's t."""


@dataclass(frozen=True)
class Paired:
    """An arm less the baseline, over the seeds that both have."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    """95 % interval of the mean difference, for this pair alone."""
    p: float | None
    """Two-sided, not corrected; None of fewer than two seeds."""


@dataclass(frozen=True)
class Judged:
    """A pair among all pairs of its study."""

    paired: Paired
    corrected: float | None
    """p after Holm's correction for as many pairs as the study has."""
    detectable: float | None
    """The true difference that a study of this size and spread finds in four of five cases."""
    verdict: Verdict


def summary(values: Float[np.ndarray, "seed"]) -> Summary:
    """Mean, standard deviation and interval of an arm's values."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired(arm: Float[np.ndarray, "seed"], baseline: Float[np.ndarray, "seed"]) -> Paired:
    """The difference of two arms whose values are in the order of the same seeds."""
    of = summary(arm - baseline)
    if of.sd is None:
        return Paired(of.n, of.mean, None, None, None, None)
    if of.sd == 0:  # the same difference in every seed: nothing or a certainty
        return Paired(of.n, of.mean, 0.0, of.low, of.high, 1.0 if of.mean == 0 else 0.0)
    t = of.mean / (of.sd / math.sqrt(of.n))
    return Paired(of.n, of.mean, of.sd, of.low, of.high, float(2 * stats.t.sf(abs(t), of.n - 1)))


def holm(p: Float[np.ndarray, "pair"], planned: int | None = None) -> Float[np.ndarray, "pair"]:
    """p values corrected so that the chance of any false finding is at most that of one test (Holm 1979).

    Of `planned` tests those that are missing count as if they had come last.
    """
    order = np.argsort(p)
    scaled = p[order] * ((planned or len(p)) - np.arange(len(p)))
    corrected = np.empty_like(scaled)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def power(effect: float, n: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test of n seeds finds a difference of `effect` standard deviations of
    the paired difference.
    """
    if effect == 0:
        return level
    # t squared is F, whose noncentral form scipy computes without failing in the tails
    return float(stats.ncf.sf(stats.t.ppf(1 - level / 2, n - 1) ** 2, 1, n - 1, n * effect**2))


def detectable(sd: float, n: int, level: float = LEVEL) -> float:
    """The difference found with probability 0.8, in the unit of `sd`, that of the paired difference."""
    if sd == 0:
        return 0.0
    high = 1.0
    while power(high, n, level) < POWER:
        high *= 2
    return sd * float(optimize.brentq(lambda effect: power(effect, n, level) - POWER, 0.0, high))


def judge(
    pairs: dict[str, Paired], better: Literal["lower", "higher"], planned: int | None = None
) -> dict[str, Judged]:
    """A verdict for each arm that is compared with the baseline.

    An arm is better or worse where its corrected p is below 0.05. The detectable effect is that of the correction's
    strictest step, 0.05 over the number of pairs. `planned` is how many arms were to be compared, failed ones
    included: what crashes must not make the test of others easier.
    """
    tested = {name: one for name, one in pairs.items() if one.p is not None}
    planned = planned or len(pairs)
    found = holm(np.array([one.p for one in tested.values()]), planned) if tested else ()
    corrected = dict(zip(tested, found, strict=True))
    judged = {}
    for name, one in pairs.items():
        if name not in tested:
            judged[name] = Judged(one, None, None, "not tested")
            continue
        verdict: Verdict = "inside noise"
        if corrected[name] < LEVEL:
            verdict = "better" if (one.mean < 0) == (better == "lower") else "worse"
        effect = detectable(one.sd, one.n, LEVEL / planned)
        judged[name] = Judged(one, float(corrected[name]), effect, verdict)
    return judged
