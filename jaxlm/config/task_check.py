"""What can be seen to be wrong with a task before its items are read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from jaxlm.config.errors import UsageError
from jaxlm.config.paths import leaves
from jaxlm.config.sampling import Options
from jaxlm.config.tasks import Choices, Generation, Task

COUNTS = ("each", "limit", "count", "window", "clusters", "longest")
"""Fields that may be 0 and not less."""
LARGEST = 2**31 - 1
"""Of seeds, which are 32-bit numbers where text is drawn."""


def check_task(task: Task) -> None:
    """Raises one UsageError that lists everything wrong, each with its field and what to do."""
    if problems := [*_problems(task)]:
        raise UsageError("\n".join(f"{task.name}: {one}" for one in problems))


def _problems(task: Task) -> Iterator[str]:
    if not re.fullmatch(r"[\w.+-]+", task.name):
        yield f"name is {task.name!r}: expected letters, digits and . + - _, as a file is named by it"
    for path, leaf in leaves(task).items():
        if path.split(".")[-1] in COUNTS and leaf.value < 0:
            yield f"{path} is {leaf.value}: expected no negative number"
        if path.split(".")[-1] == "seed" and leaf.value is not None and not 0 <= leaf.value <= LARGEST:
            yield f"{path} is {leaf.value}: expected 0 to {LARGEST}"
        if path.split(".")[-1] in ("restarts", "k", "depths") and not _positive(leaf.value):
            yield f"{path} is {leaf.value}: expected at least 1"
        if path.split(".")[-1] in ("split", "pattern", "answer_pattern", "ignore"):
            yield from _patterns(path, leaf.value if isinstance(leaf.value, tuple) else (leaf.value,))
    match task:
        case Choices(normalizations=()):
            yield "normalizations is empty: name one"
        case Generation():
            yield from _generation(task)


def _positive(value: int | tuple[int, ...]) -> bool:
    return value >= 1 if isinstance(value, int) else bool(value) and min(value) >= 1


def _patterns(path: str, patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{path} is {pattern!r}, which is no regular expression: {error}"


def _generation(task: Generation) -> Iterator[str]:
    samples = task.draw.samples
    if not task.metrics:
        yield "metrics is empty: name one"
    if samples < 1 or task.draw.tokens < 1:
        yield f"draw.samples is {samples}, draw.tokens {task.draw.tokens}: expected at least 1 of both"
    for field, (good, expected) in _ranges(task.draw).items():
        if not good:
            yield f"draw.{field} is {getattr(task.draw, field)}: expected {expected}"
    if samples > 1 and task.draw.temperature == 0:
        yield f"draw.samples is {samples}: greedy ones are all the same, set draw.temperature"
    if "" in task.stop:
        yield "stop has an empty text, before which nothing could be drawn"
    for k in task.passes:
        if not 1 <= k <= samples:
            yield f"passes has {k}: expected 1 to draw.samples = {samples}"
    if (task.passes or task.vote) and task.metrics[:1] == ("f1",):
        yield "passes and vote judge by the first metric, which f1 cannot be: right or wrong is wanted"


def _ranges(draw: Options) -> dict[str, tuple[bool, str]]:
    """By field whether its value is one that text can be drawn with, and which are."""
    return {
        "temperature": (draw.temperature == 0 or 1e-5 <= draw.temperature < math.inf, "0, or at least 1e-5"),
        "top_k": (draw.top_k >= 0, "0 (all) or more"),
        "top_p": (0 < draw.top_p <= 1, "above 0 and at most 1"),
        "min_p": (0 <= draw.min_p <= 1, "0 to 1"),
    }
