"""Items of tasks: where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Records:
    """Items of local files; nothing is downloaded."""

    path: str = ""
    """A file below the directory of `--data`, else of JAXLM_DATA; a .zip holds several."""
    source: str = ""
    """Where it can be got: said when it is not there."""
    format: Literal["suffix", "jsonl", "json", "csv", "tsv", "text", "lines"] = "suffix"
    """How a file is read, by default as its name ends. Of a text (.txt) the whole is one item, `{text}`; of lines
    each.
    """
    members: str = "*"
    """Which files of an archive, by pattern, in the order of their names."""
    rows: str = ""
    """Where the items are in a tree of JSON, such as `data.paragraphs.qas`; fields of what holds them
    are theirs.
    """
    names: tuple[str, ...] = ()
    """What the values of items are called that are lists without names, in order."""
    split: str = ""
    """A regular expression, at each match of which another item of a text begins."""
    each: int = 0
    """Items of each file at most, the first ones; 0 is all."""
    limit: int = 0
    """Items in all at most; 0 is all."""
    seed: int | None = None
    """Draws those that `limit` leaves; without it they are the first."""
