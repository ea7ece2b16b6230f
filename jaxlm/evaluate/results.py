"""What was asked of a model and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Num, Shaped
from numpy import ndarray

from jaxlm.config.tasks import Task
from jaxlm.evaluate import intervals
from jaxlm.layers.contracts import Call
from jaxlm.models.pooling import Pooling
from jaxlm.tokenizers import Tokenizer


@dataclass(frozen=True)
class Subject:
    """A model as tasks meet it."""

    model: Any
    tokenizer: Tokenizer
    call: Call
    length: int
    """Tokens of the rows that it was trained on, or is meant for."""
    prefixed: bool = False
    """Whether it was trained to see prompts from both sides."""
    pool: Pooling = "mean"
    """What makes a vector of a text's hidden states, as it was trained."""
    names: tuple[str, ...] = ()
    """Labels by number that its data named."""
    notes: tuple[str, ...] = ()
    """What holds of every task that it is asked."""


@dataclass(frozen=True)
class Metric:
    """A number with its 95 % confidence interval."""

    name: str
    value: float
    low: float
    high: float
    n: int
    """Items."""


@dataclass(frozen=True)
class Result:
    """A task's numbers and what they are made of."""

    task: Task
    hash: str
    """Of the templates and worked examples."""
    metrics: tuple[Metric, ...]
    items: list[dict[str, Any]] = field(repr=False)
    """For each item the hash of what was asked, and its scores."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """By group each metric's value."""
    notes: tuple[str, ...] = ()
    """What whoever reads the numbers has to know, such as prompts that had to be cut."""


@dataclass(frozen=True)
class Asked:
    """A task whose items are read and whose prompts are written: all but the model."""

    task: Task
    hash: str
    items: int
    run: Callable[[Subject], Result] = field(repr=False)


def digest(*parts: Any) -> str:
    """A name for what was asked: the first 16 hexadecimal digits of sha256 of its JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shortened(cut: Sequence[bool], why: str = "were longer than the model reads") -> tuple[str, ...]:
    """A note of how many prompts had to be cut; none where none had to."""
    return (f"{sum(cut)} of {len(cut)} prompts {why}, and were cut on the left",) if any(cut) else ()


def share(name: str, right: Sequence[bool] | Bool[ndarray, " item"]) -> Metric:
    """Of independent items those that are right."""
    n, found = len(right), int(sum(map(bool, right)))
    return Metric(name, found / n, *intervals.share(found, n), n)


def around(name: str, statistic: Callable[..., float], *arrays: Shaped[ndarray, "..."]) -> Metric:
    """A statistic of items that is no mean of theirs."""
    return Metric(name, statistic(*arrays), *intervals.around(statistic, *arrays), len(arrays[0]))


def mean(name: str, values: Num[ndarray, " item"], clusters: Shaped[ndarray, " item"] | None = None) -> Metric:
    """The mean of items' scores, at best 1, whose `clusters` are drawn together in its interval."""
    return Metric(name, float(values.mean()), *intervals.mean(values, groups=clusters), len(values))


def ratio(
    name: str,
    numerators: Num[ndarray, " item"],
    denominators: Num[ndarray, " item"],
    of: Callable[[float], float] = float,
) -> Metric:
    """of(sum of numerators / sum of denominators), for an increasing `of`."""
    ends = intervals.ratio(numerators, denominators)
    value, low, high = (of(one) for one in (float(numerators.sum() / denominators.sum()), *ends))
    return Metric(name, value, low, high, len(numerators))


def exponential(nats: float) -> float:
    """A perplexity; infinite where a float cannot hold it."""
    return math.exp(nats) if nats < 700 else math.inf
