"""Worked examples before an item's own question."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jaxlm.config.errors import UsageError
from jaxlm.config.tasks import DrawnShots, ListedShots, Records, Shots, ZeroShot
from jaxlm.evaluate.records import Item, limited, read, without

SEPARATOR = "\n\n"
"""Between worked examples, and before the question."""


def opened(data: Records, shots: Shots, root: Path, worked: Callable[[Item], str]) -> tuple[list[Item], str]:
    """The items to ask and the text before each of them; `worked` writes an example with its answer.

    Raises UsageError where `read` does, for more examples than there are items, and where none is left to ask.
    """
    match shots:
        case ZeroShot():
            return read(data, root), ""
        case ListedShots(examples):
            return read(data, root), "".join(each + SEPARATOR for each in examples)
        case DrawnShots(source, count, seed):
            known = read(source, root)
            if count > len(known):
                raise UsageError(f"shots.count is {count}: {source.path} has {len(known)} items")
            drawn = random.Random(seed).sample(known, count)
            # Before `limit`, so that the items that are asked are as many as they were to be.
            rest = without(read(replace(data, limit=0), root), drawn)
            if not rest:
                raise UsageError(f"shots.count is {count}: of {data.path} no item is left to ask")
            return limited(rest, data), "".join(worked(each) + SEPARATOR for each in drawn)
