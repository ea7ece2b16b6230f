"""The files that a study reads, and the code that computes it."""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import jaxlm
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.paths import leaves
from jaxlm.config.study import Study
from jaxlm.runs.initial import missing

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
OTHER_ROOMS = ("cli", "cluster", "interop", "planning", "runs", "serve", "study")
"""Rooms that decide nothing about the numbers of a training run and its tasks, but for these files of `study`."""
INSIDE = ("together", "lanes", "programs", "variation")


def refuse_missing(study: Study, arms: dict[str, Experiment]) -> None:
    """Raises UsageError that names every file of data and tokenizers, and every run to begin from or to learn
    of, that is not there, and where they can be had.
    """
    absent: dict[str, list[str]] = {}
    for name, experiment in arms.items():
        for option, path in _named(experiment):
            found = glob.glob(path, recursive=True) if glob.has_magic(path) else Path(path).exists()
            if not found:
                absent.setdefault(f"no file for {option} {path!r}", []).append(name)
        for role, path in missing(experiment).items():
            absent.setdefault(f"no run for {role} {path!r}", []).append(name)
    if absent:
        lines = [f"  {what} (arms {', '.join(names)})" for what, names in absent.items()]
        raise UsageError(f"study {study.name}:\n" + "\n".join(lines) + to_be_had(study))


def to_be_had(study: Study) -> str:
    """A line that says where what the study reads can be had, where it does say so."""
    return f"\n  to be had: {study.obtain}" if study.obtain else ""


def _named(experiment: Experiment) -> list[tuple[str, str]]:
    """(field, path) of every file that the data and the tokenizer name."""
    found = []
    for option, leaf in leaves(experiment).items():
        room, name = option.split(".")[0], option.split(".")[-1]
        if room not in ("data", "tokenizer") or name not in ("path", "paths", "held_out_paths", "merges"):
            continue
        values = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        found += [(option, value) for value in values if value and "://" not in value]
    return found


def code() -> dict[str, str]:
    """A hash of each source file that decides what a training run computes, and versions of what they stand on."""
    root = Path(jaxlm.__file__).parent
    files = {}
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0]
        if room not in OTHER_ROOMS or (room == "study" and path.stem in INSIDE):
            files[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return files | versions | {"python": platform.python_version()}


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What is not the same in two records of code."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
