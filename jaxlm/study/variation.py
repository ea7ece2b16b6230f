"""What may differ between runs of one program: numbers that it can be given, and the runs that they start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxlm.config.codec import ABSENT, difference
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment

GIVEN = ("train.clip", "train.ema", "optimizer.", "objective.")
"""Where the numbers are that a step can be given; those that are no whole numbers."""
SEED = "train.seed"
INITIAL = "initial"
"""Where parameters begin is no part of the program: each run may start from one of its own."""


def varied(experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """The fields in which experiments differ, each a number that one program can be given; beside their names, and
    the runs that they start from.

    Raises UsageError for fields that decide about shapes or programs.
    """
    first, found, problems = experiments[0], [], []
    for other in experiments[1:]:
        for path, here, there in difference(first, other):
            if path == "name" or path in found or (path == INITIAL and here and there):
                continue
            if path == SEED or (path.startswith(GIVEN) and type(here) is type(there) is float):
                found.append(path)
            else:
                problems.append(f"  {path}: {_shown(here)} in {first.name}, {_shown(there)} in {other.name}")
    if problems:
        raise UsageError(
            "runs of one program may differ in train.seed, in numbers of optimizer and objective, and in the run "
            "that they start from; these fields decide about shapes or programs:\n"
            + "\n".join(dict.fromkeys(problems))
        )
    return tuple(sorted(found))


def at(experiment: Experiment, path: str) -> Any:
    """The value of a field by its dotted path."""
    node: Any = experiment
    for name in path.split("."):
        node = node[int(name)] if isinstance(node, tuple) else getattr(node, name)
    return node


def _shown(value: Any) -> str:
    return value if value == ABSENT else repr(value)
