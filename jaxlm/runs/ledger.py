"""What the run directories say, read only."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

from etils import epath

from jaxlm.config.errors import Failure, UsageError
from jaxlm.runs.directory import CONFIG, read_experiment, status
from jaxlm.runs.files import explained
from jaxlm.runs.journal import read_metrics

RUNS = "runs"


@dataclass(frozen=True)
class Summary:
    """One line of the ledger; None where nothing is recorded yet."""

    path: str
    name: str
    hash: str
    status: str
    steps: int
    of: int
    loss: float | None
    bits_per_byte: float | None
    """The best on held-out text."""
    written: float | None
    """Time of the last record, in seconds since 1970."""


def find_run(name: str) -> str:
    """The directory of a run named by its path, or by its name in runs/. Raises UsageError."""
    for path in (epath.Path(name), epath.Path(RUNS) / name):
        with explained(path, "read"):
            if (path / CONFIG).exists():
                return str(path)
    known = [epath.Path(path).name for path in run_directories(RUNS)]
    close = difflib.get_close_matches(epath.Path(name).name, known, 3, 0.5)
    hint = "; nearest:\n" + "\n".join(f"  {RUNS}/{one}" for one in close) if close else ""
    reason = f"is no run: it has no {CONFIG}" if epath.Path(name).exists() else "does not exist"
    raise UsageError(f"{name} {reason}{hint}")


def run_directories(directory: str) -> list[str]:
    """All runs directly below a directory."""
    path = epath.Path(directory)
    with explained(path, "read"):
        return sorted(str(one) for one in path.iterdir() if (one / CONFIG).exists()) if path.is_dir() else []


def summarize(run_dir: str) -> Summary:
    """A run in a line. Raises Failure if its files are damaged."""
    path = epath.Path(run_dir)
    experiment = read_experiment(path)
    records = read_metrics(path, ("train", "evaluate", "event"))
    trained = [one for one in records if one["kind"] == "train"]
    losses = [one["loss"] for one in trained if "loss" in one]
    held_out = [one["bits_per_byte"] for one in records if "bits_per_byte" in one]
    with explained(path, "read"):
        times = [one["time"] for one in records] or [(path / CONFIG).stat().mtime]
    return Summary(
        path=str(path),
        name=experiment.name,
        hash=json.loads((path / CONFIG).read_text()).get("hash", "")[:8],
        status=status(path),
        steps=max((one["step"] for one in trained), default=0),
        of=experiment.train.steps,
        loss=losses[-1] if losses else None,
        bits_per_byte=min(held_out) if held_out else None,
        written=max(times),
    )


def attempts(run_dir: str) -> list[dict[str, Any]]:
    """The manifests of a run in order. Raises Failure if one is damaged."""
    folder = epath.Path(run_dir) / "manifests"
    with explained(folder, "read"):
        paths = sorted(folder.glob("*.json")) if folder.exists() else []
        try:
            return [json.loads(path.read_text()) | {"attempt": int(path.stem)} for path in paths]
        except ValueError:
            raise Failure(f"{folder}: a manifest is damaged") from None


def final_metrics(run_dir: str) -> dict[str, float]:
    """The last value of every number that training and evaluation recorded, as `kind/name`."""
    found: dict[str, float] = {}
    for one in read_metrics(run_dir, ("train", "evaluate")):
        for name, value in one.items():
            if isinstance(value, int | float) and name not in ("attempt", "time"):
                found[f"{one['kind']}/{name}"] = value
    return found


def failed_tasks(records: list[dict[str, Any]]) -> list[str]:
    """Of the records of tasks a line for each task that could not be asked, the newest of it."""
    found: dict[str, str] = {}
    for one in records:
        failed = one.get("failed")
        for task, why in failed.items() if isinstance(failed, dict) else ():
            found[task] = f"step {one['step']} could not ask {why}"
    return list(found.values())
