"""Results as files."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from etils import epath

from jaxlm.evaluate.results import Result
from jaxlm.runs.files import explained, write_atomically

DIRECTORY = "evaluations"
"""Of a run, where its results are."""


def write(directory: Any, name: str, *trees: dict[str, Any]) -> epath.Path:
    """Writes all in one object, NAME.json, and returns its path. Raises Failure."""
    path = epath.Path(directory) / f"{name}.json"
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    whole = _finite({key: value for tree in trees for key, value in tree.items()})
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    write_atomically(path, text + "\n")
    return path


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
