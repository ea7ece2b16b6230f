"""Labeled texts, and which of them may be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlm.config.errors import UsageError
from jaxlm.config.records import Records
from jaxlm.evaluate.records import read
from jaxlm.evaluate.template import render


@dataclass(frozen=True)
class Labeled:
    """Texts, or pairs of them, each with its label."""

    texts: list[tuple[str, ...]]
    labels: list[str]


def labeled(templates: Sequence[str], label: str, records: Records, root: Path) -> Labeled:
    """Of each item a text by each template. Raises UsageError as `read` and `render` do."""
    items = read(records, root)
    texts = [tuple(render(one, item) for one in templates) for item in items]
    return Labeled(texts, [render(label, item) for item in items])


def unseen(learned: Labeled, judged: Labeled, field: str) -> tuple[Labeled, tuple[str, ...]]:
    """What is learned from without the texts that are judged, and a note of how many of those there were.

    `field` names in the task what is learned from. Raises UsageError where nothing would be left of it.
    """
    known = set(judged.texts)
    kept = [(text, label) for text, label in zip(learned.texts, learned.labels) if text not in known]
    total, both = len(learned.texts), len(learned.texts) - len(kept)
    if not kept:
        raise UsageError(f"all {total} texts of {field} are among those that are judged: give it others")
    texts, labels = map(list, zip(*kept))
    note = f"{both} of {total} texts of {field} are among those that are judged, and were left out of it"
    return Labeled(texts, labels), (note,) if both else ()
