"""Results as files."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from etils import epath

from jaxlm.evaluate.results import Result, digest
from jaxlm.runs.files import explained, write_atomically

DIRECTORY = "evaluations"
"""Of a run, where its results are."""
ASKED = ("parameters", "begin", "task", "harness", "limit", "seed")
"""What a result is the answer to, and whose, of its entries."""


def write(directory: Any, name: str, *trees: dict[str, Any]) -> tuple[epath.Path, epath.Path | None]:
    """Writes all in one object, NAME.json. Returns its path, and where a result of that name now is that was there
    and was asked otherwise, or of other parameters: NAME-HASH.json, by the hash of that. Raises Failure.
    """
    path = epath.Path(directory) / f"{name}.json"
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    whole = _finite({key: value for tree in trees for key, value in tree.items()})
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    apart = _apart(path, json.loads(text))
    kept = None
    with explained(path):
        if path.exists() and (other := _apart(path, _read(path))) != apart:
            kept = path.replace(other)
    write_atomically(path, text + "\n")
    with explained(apart):
        apart.unlink(missing_ok=True)  # an earlier answer to the same
    return path, kept


def _apart(path: epath.Path, tree: dict[str, Any]) -> epath.Path:
    return path.parent / f"{path.stem}-{digest(*(tree.get(key) for key in ASKED))[:8]}.json"


def _read(path: epath.Path) -> dict[str, Any]:
    """A result; empty if it is damaged."""
    try:
        tree = json.loads(path.read_text())
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def as_json(result: Result) -> dict[str, Any]:
    """All of a result."""
    return {
        "task": {"class": type(result.task).__name__, **dataclasses.asdict(result.task)},
        "hash": result.hash,
        "metrics": [dataclasses.asdict(one) for one in result.metrics],
        "groups": result.groups,
        "notes": result.notes,
        "items": result.items,
    }


def _finite(value: Any) -> Any:
    """Numbers that JSON lacks become null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
