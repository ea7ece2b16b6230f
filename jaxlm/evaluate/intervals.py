"""How far a number of few items may be from that of all: confidence intervals.

Items are the sample: what would change if other sentences, questions or documents had been asked of the same model.
Seeds of training are another source of noise, which none of these intervals holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from scipy.stats import norm

Interval = tuple[float, float]
RESAMPLES = 10_000
"""Of which the 2.5th and the 97.5th percentile are known to about 4 % of the interval's width."""
AT_ONCE = 1 << 20
"""Numbers drawn at once: a few MiB, however many the items."""


def share(successes: int, n: int, level: float = 0.95) -> Interval:
    """Of n independent items, of which so many are right: Wilson's interval of the share.

    It stays within 0 and 1, and near them it covers what it says, unlike share +- 1.96 standard errors, which at 0
    or n successes is of width 0 (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1). (0, 1) of no items.
    Raises ValueError for more successes than items.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} items")
    if n == 0:
        return 0.0, 1.0
    z = _normal(level)
    found = successes / n
    middle = (found + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(found * (1 - found) / n + z**2 / (4 * n**2))
    # Exactly 0 and 1, which the difference of two rounded numbers is not.
    return (middle - half if successes else 0.0), (middle + half if successes < n else 1.0)


def mean(
    values: Num[np.ndarray, " item"] | Bool[np.ndarray, " item"],
    level: float = 0.95,
    seed: int = 0,
    groups: Shaped[np.ndarray, " item"] | None = None,
) -> Interval:
    """The percentile bootstrap's interval of a mean (Efron and Tibshirani 1993, chapter 13).

    `groups` names the group of each item (questions about one paragraph, turns of one conversation): groups are
    drawn then, not items, since items of one group say less than as many that are independent (Miller 2024,
    arXiv:2411.00640, section 2.2). Below some 20 items or groups it is too narrow, and of one it is a point. Where
    all values are 0, or all 1, every resample is alike and would say that nothing else can be: they are taken for a
    share of as many items, or groups, and the interval is Wilson's. Raises ValueError for no items.
    """
    n = len(values if groups is None else np.unique(groups))
    if n and (values[0] == 0 or values[0] == 1) and np.all(np.asarray(values) == values[0]):
        return share(n * int(values[0]), n, level)
    return ratio(values, np.ones(len(values)), level, seed, groups)


def ratio(
    numerators: Num[np.ndarray, " item"] | Bool[np.ndarray, " item"],
    denominators: Num[np.ndarray, " item"],
    level: float = 0.95,
    seed: int = 0,
    groups: Shaped[np.ndarray, " item"] | None = None,
) -> Interval:
    """The bootstrap's interval of sum(numerators) / sum(denominators), as in `mean`.

    Nats and tokens of documents give that of the loss, whose exponential is that of the perplexity; nats and bytes
    that of the bits per byte. An infinite numerator makes the upper end infinite where it is drawn often enough.
    Raises ValueError for no items, and where denominators are not above 0.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if not np.all(bottom > 0):
        raise ValueError("a denominator is not above 0")
    if groups is not None:
        names, of = np.unique(groups, return_inverse=True)
        top, bottom = (np.bincount(of, weights=each, minlength=len(names)) for each in (top, bottom))
    found = [top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1) for drawn in _draws(len(top), RESAMPLES, seed)]
    return _percentiles(np.concatenate(found), level)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: Shaped[np.ndarray, "..."],
    level: float = 0.95,
    seed: int = 0,
    groups: Shaped[np.ndarray, " item"] | None = None,
    resamples: int = 1_000,
) -> Interval:
    """The bootstrap's interval of `statistic(*arrays)`, of arrays that share their items: for a macro-F1, a rank
    correlation and what else is no mean, as in `mean`.

    Fewer resamples than of a mean, since each is a call: the ends are known to about a tenth of the width. Both are
    nan where the statistic is nan of a resample: it is not defined for so few items. Raises ValueError for no items
    and for arrays of different lengths.
    """
    return _percentiles(_resampled(statistic, arrays, seed, groups, resamples), level)


def around(
    statistic: Callable[..., float],
    *arrays: Shaped[np.ndarray, "..."],
    level: float = 0.95,
    seed: int = 0,
    groups: Shaped[np.ndarray, " item"] | None = None,
    resamples: int = 1_000,
) -> Interval:
    """As `bootstrap`, moved so that the mean of the resamples lies at the statistic of the items themselves.

    For what drawing items twice makes larger, as it does the mutual information of two groupings, whose value may
    lie below all its resamples. The truth it holds is what another sample of as many items has on average.
    """
    found = _resampled(statistic, arrays, seed, groups, resamples)
    return _percentiles(found - found.mean() + statistic(*arrays), level)


def _resampled(
    statistic: Callable[..., float],
    arrays: tuple[Shaped[np.ndarray, "..."], ...],
    seed: int,
    groups: Shaped[np.ndarray, " item"] | None,
    resamples: int,
) -> Float[np.ndarray, " resample"]:
    if len({len(each) for each in arrays}) != 1:
        raise ValueError(f"arrays of {', '.join(str(len(each)) for each in arrays)} items")
    members = _members(groups, len(arrays[0]))
    found = []
    for drawn in _draws(len(members), resamples, seed):
        for row in drawn:
            chosen = row if groups is None else np.concatenate([members[one] for one in row])
            found.append(statistic(*(each[chosen] for each in arrays)))
    return np.asarray(found, np.float64)


def _members(groups: Shaped[np.ndarray, " item"] | None, items: int) -> list[Int[np.ndarray, " some"]] | range:
    """The items of each group."""
    if groups is None:
        return range(items)
    if len(groups) != items:
        raise ValueError(f"groups of {len(groups)} items, and there are {items}")
    _, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.split(np.argsort(of, kind="stable"), np.cumsum(counts)[:-1])


def _draws(n: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "some n"]]:
    """Resamples with replacement, as many at once as memory should hold: the same whatever that is."""
    if n == 0:
        raise ValueError("there are no items to draw from")
    rng = np.random.default_rng(seed)
    step = max(AT_ONCE // n, 1)
    for start in range(0, resamples, step):
        yield rng.integers(0, n, (min(step, resamples - start), n))


def _percentiles(found: Float[np.ndarray, " resample"], level: float) -> Interval:
    if np.isnan(found).any():
        return math.nan, math.nan
    _normal(level)
    # An order statistic, never between two: one of them may be infinite.
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(low), float(high)


def _normal(level: float) -> float:
    """Standard errors on either side of a normal's mean that hold this share of it."""
    if not 0 < level < 1:
        raise ValueError(f"a level of {level}: expected one between 0 and 1, such as 0.95")
    return float(norm.ppf((1 + level) / 2))
