"""The one writer of run directories: creates, resumes or refuses, before anything in them is touched.

    config.json         the experiment and the hash of what it computes
    manifest.json       the latest attempt; manifests/0001.json and so on are all of them
    metrics.jsonl       the journal (metrics/*.jsonl in an object store)
    DONE                written last

Only process 0 of a cluster calls `is_finished`, `open_run` and `finish`; all others take `run_path`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from etils import epath

from jaxlm.config.codec import ABSENT, difference, from_json, to_json, what, what_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.runs.files import explained, is_local, write_atomically
from jaxlm.runs.manifest import manifest

CONFIG, DONE, LOCK = "config.json", "DONE", "LOCK"
RECENT = 300.0
"""Seconds after which a run in an object store that writes nothing counts as stopped."""

_held: dict[str, Any] = {}


@dataclass(frozen=True)
class Run:
    """An open run directory; `attempt` counts from 1, and a finished run may only be read."""

    path: epath.Path
    experiment: Experiment
    attempt: int
    finished: bool = False

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt may have left checkpoints."""
        return self.attempt > 1


def run_path(experiment: Experiment, run_dir: str | None = None) -> epath.Path:
    """Where a run lives: `run_dir`, or `runs/<name>-<first 8 of its hash>`."""
    return epath.Path(run_dir or f"runs/{experiment.name}-{what_hash(experiment)[:8]}")


def is_finished(experiment: Experiment, run_dir: str | None = None) -> bool:
    """Whether there is nothing left to do; touches nothing.

    Raises as `open_run` would, so that a directory that cannot be used is refused before there is work done.
    """
    path = run_path(experiment, run_dir)
    with explained(path, "open"):
        if (path / CONFIG).exists():
            _refuse_other(path, experiment)
            return (path / DONE).exists()
        _refuse_foreign(path)
        if is_local(path):
            _refuse_unwritable(path)
    return False


def open_run(experiment: Experiment, run_dir: str | None = None) -> Run:
    """Creates a run, or resumes the one that computes the same; `where` may differ between attempts.

    A finished run comes back with `finished=True` and untouched: asking again for what is done is no error.
    Raises UsageError for a directory that holds something else or is in use, Failure if it cannot be written.
    """
    path = run_path(experiment, run_dir)
    with explained(path, "open"):
        if not (path / CONFIG).exists():
            _refuse_foreign(path)
        else:
            _refuse_other(path, experiment)
            if (path / DONE).exists():
                return Run(path, experiment, _attempts(path), finished=True)
        path.mkdir(parents=True, exist_ok=True)
        _lock(path)
        if not (path / CONFIG).exists():
            _write_json(path / CONFIG, {"hash": what_hash(experiment), **_config(experiment)})
        attempt = _attempts(path) + 1
        (path / "manifests").mkdir(exist_ok=True)
    run = Run(path, experiment, attempt)
    record(run, **manifest(experiment))
    return run


def record(run: Run, **entries: Any) -> None:
    """Adds entries to the manifest of this attempt (devices, mesh, fingerprints). Raises Failure."""
    numbered = run.path / "manifests" / f"{run.attempt:04d}.json"
    with explained(numbered, "read"):
        before = json.loads(numbered.read_text()) if numbered.exists() else {"attempt": run.attempt}
    _write_json(numbered, before | entries)
    _write_json(run.path / "manifest.json", before | entries)


def finish(run: Run) -> None:
    """Marks the run as done; the last thing that is written."""
    write_atomically(run.path / DONE, "")
    release(run)


def release(run: Run) -> None:
    """Lets another process open the run; the end of this one does the same."""
    file = _held.pop(_key(run.path), None)
    if file is not None:
        file.close()


def read_experiment(run_dir: Any) -> Experiment:
    """The experiment of a run directory. Raises UsageError if it is none, Failure if it is damaged."""
    path = epath.Path(run_dir)
    with explained(path, "read"):
        if not (path / CONFIG).exists():
            raise UsageError(f"{path} is no run: it has no {CONFIG}")
    return from_json(_read_config(path)["experiment"])


def read_sources(run_dir: Any) -> dict[str, str]:
    """sha256 by import string of the experiment's own code, as it was when the run began. Raises Failure."""
    return _read_config(epath.Path(run_dir)).get("sources", {})


def status(run_dir: Any) -> str:
    """`finished`, `running` or `stopped`."""
    path = epath.Path(run_dir)
    with explained(path, "read"):
        if (path / DONE).exists():
            return "finished"
        return "running" if _in_use(path) else "stopped"


# --- refusals ----------------------------------------------------------------------------------------------


def _refuse_foreign(path: epath.Path) -> None:
    """A directory that is not empty and no run is somebody else's."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: name a directory with --run-dir")
    names = [one.name for one in path.iterdir()] if path.exists() else []
    # what a run that was killed while it was created leaves is ours
    others = sorted(name for name in names if name != LOCK and not name.startswith(CONFIG))
    if others:
        raise UsageError(f"{path} is no run and not empty (it has {others[0]}): name another with --run-dir")


def _refuse_unwritable(path: epath.Path) -> None:
    """A directory that cannot be made."""
    parent = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not parent.is_dir():
        raise UsageError(f"{parent} is a file: name another directory with --run-dir")
    if not os.access(parent, os.W_OK):
        raise Failure(f"cannot write {path}: {parent} is read-only: name another directory with --run-dir")


def _refuse_other(path: epath.Path, experiment: Experiment) -> None:
    """A run of another experiment names the fields that differ."""
    stored = _read_config(path)
    theirs = from_json(stored["experiment"])
    there, here = (what(one)["experiment"] for one in (theirs, experiment))
    for role in ("initial", "teacher"):
        if there.get(role) == here.get(role):  # the same, wherever it lies
            theirs = dataclasses.replace(theirs, **{role: getattr(experiment, role)})
    lines = [
        f"  {field}: {there!r} there, {here!r} here"
        for field, there, here in difference(theirs, experiment)
        if not field.startswith("where.") and ABSENT not in (there, here)
    ]
    if stored.get("sources", {}) != what(experiment)["sources"]:
        lines.append("  the source of the objective has changed")
    if lines:
        shown = lines[:8] + ([f"  and {len(lines) - 8} more"] if len(lines) > 8 else [])
        raise UsageError(f"{path} is a run of another experiment:\n" + "\n".join(shown))


# --- details -----------------------------------------------------------------------------------------------


def _config(experiment: Experiment) -> dict[str, Any]:
    return {"sources": what(experiment)["sources"], "experiment": to_json(experiment)}


def _read_config(path: epath.Path) -> dict[str, Any]:
    try:
        tree = json.loads((path / CONFIG).read_text())
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or not isinstance(tree.get("experiment"), dict):
        raise Failure(f"{path / CONFIG} is damaged: it holds no experiment")
    return tree


def _write_json(path: epath.Path, tree: Any) -> None:
    write_atomically(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def _attempts(path: epath.Path) -> int:
    folder = path / "manifests"
    numbers = [int(one.stem) for one in folder.iterdir() if one.stem.isdigit()] if folder.exists() else []
    return max(numbers, default=0)


def _key(path: Any) -> str:
    return os.path.realpath(path) if is_local(path) else os.fspath(path)


def _lock(path: epath.Path) -> None:
    """Holds the directory for this process until it ends, however it ends. Raises UsageError if held."""
    if not is_local(path) or _key(path) in _held:
        return
    file = open(path / LOCK, "a+")  # noqa: SIM115 (held for the life of the process)
    try:
        # a POSIX lock: children do not inherit it, so a stray worker cannot keep the run
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise UsageError(f"{path} is being written by {owner}: wait for it or stop it") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    file.flush()
    _held[_key(path)] = file


def _in_use(path: epath.Path) -> bool:
    if not is_local(path):
        newest = [one.stat().mtime for one in (path / "metrics").glob("*.jsonl")]
        newest += [(path / "manifest.json").stat().mtime] if (path / "manifest.json").exists() else []
        return time.time() - max(newest, default=0.0) < RECENT
    if _key(path) in _held:
        return True
    with contextlib.suppress(FileNotFoundError, PermissionError), open(path / LOCK, "r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
