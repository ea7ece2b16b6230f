"""A study's runs, one process after another: what is finished is left, what fails is reported, the rest goes on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxlm.config.codec import to_json, whole_hash
from jaxlm.config.errors import AGAIN, Failure, UsageError
from jaxlm.config.experiment import Every, Experiment, Samples
from jaxlm.config.study import Study
from jaxlm.runs.directory import DONE
from jaxlm.runs.files import write_atomically
from jaxlm.study.budget import Seconds
from jaxlm.study.children import child, log_of
from jaxlm.study.files import changed, code
from jaxlm.study.plan import Cell

RECORD, TIMED = "study.json", "measured"
MEASURED = 40
"""Steps of the run that tells how long a step takes."""
Say = Callable[[str], None]


@dataclass
class Progress:
    """How far a study has come."""

    failed: dict[str, str] = field(default_factory=dict)
    """Why, by name of the part that failed."""
    stopped: bool = False
    """Whether a run was told to stop, and has saved."""


@dataclass(frozen=True)
class Part:
    """What one process trains: a run, or all runs of an arm in one program."""

    name: str
    """As `--only` takes it."""
    cells: tuple[Cell, ...]


def parts(cells: Sequence[Cell], together: bool) -> list[Part]:
    """The processes that a study takes, in order."""
    if not together:
        return [Part(cell.name, (cell,)) for cell in cells]
    arms = dict.fromkeys(cell.arm for cell in cells)
    return [Part(arm, tuple(cell for cell in cells if cell.arm == arm)) for arm in arms]


def chosen(cells: Sequence[Cell], only: str) -> list[Cell]:
    """The cells of an arm, or the one of an arm and a seed. Raises UsageError for a name that is none."""
    found = [cell for cell in cells if only in (cell.arm, cell.name)]
    if not found:
        names = dict.fromkeys(name for cell in cells for name in (cell.arm, cell.name))
        raise UsageError(f"--only {only}: no such arm or run; there are {', '.join(names)}")
    return found


def finished(cell: Cell, root: Path) -> bool:
    """Whether its run is done; the directory's name has the hash of what is computed."""
    return (root / cell.folder / DONE).exists()


def run_all(
    todo: Sequence[Part], root: Path, words: Sequence[str], say: Say, check: Callable[[Cell], object]
) -> Progress:
    """Trains every part that is not finished in a process of its own, `jaxlm study WORDS --only PART`.

    Each run that is finished is given to `check`, whose error ends the study before the next is trained.
    Raises UsageError when the code changes on the way.
    """
    progress = Progress()
    for cell in (cell for part in todo for cell in part.cells if finished(cell, root)):
        check(cell)
    left = [part for part in todo if not all(finished(cell, root) for cell in part.cells)]
    if len(left) < len(todo):
        say(f"{len(todo) - len(left)} of {len(todo)} are finished")
    for number, part in enumerate(left, 1):
        refuse_changed(root)
        say(f"{number}/{len(left)} {part.name}")
        began = time.monotonic()
        status, last = child([*words, "--only", part.name], log_of(root, part.name), lambda line: say(f"  {line}"))
        if status == AGAIN:
            progress.stopped = True
            return progress
        if status:
            progress.failed[part.name] = last
            say(f"{part.name} failed: {last} (all it said is in {log_of(root, part.name)}); the others go on")
        else:
            say(f"{part.name} finished in {time.monotonic() - began:.0f} s")
            for cell in part.cells:
                check(cell)
    return progress


# --- the record --------------------------------------------------------------------------------------------


def read_record(root: Path) -> dict[str, Any]:
    """What the study's directory remembers: code, arms and measured seconds. Raises Failure if it is damaged."""
    path = root / RECORD
    if not path.exists():
        return {}
    try:
        tree = json.loads(path.read_text())
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or not isinstance(tree.get("code"), dict):
        raise Failure(f"{path} is damaged: remove it, and the runs beside it, or name another --study-dir")
    return tree


def write_record(study: Study, arms: dict[str, Experiment], root: Path, seconds: Seconds | None = None) -> None:
    """Notes what is being compared, the code that compares it, and seconds of steps beside those that are known.

    Raises UsageError for a directory that holds something else.
    """
    before = read_record(root)
    found = sorted(one.name for one in root.iterdir()) if root.exists() else []
    # another process of this study may be writing its record
    others = [name for name in found if not name.startswith(RECORD)]
    if others and not before:
        raise UsageError(f"{root} is no study and not empty (it has {others[0]}): name another with --study-dir")
    if before and before.get("name") != study.name:
        raise UsageError(f"{root} is the study {before.get('name')}: name another with --study-dir")
    root.mkdir(parents=True, exist_ok=True)
    tree = {
        "name": study.name,
        "seeds": list(study.seeds),
        "code": before.get("code") or code(),
        "seconds": (before.get("seconds") or {}) | (seconds or {}),
        "arms": {name: to_json(experiment) for name, experiment in arms.items()},
    }
    write_atomically(root / RECORD, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def refuse_changed(root: Path) -> None:
    """Raises UsageError where code or packages are not those that earlier runs of the study were computed by."""
    before = read_record(root).get("code")
    if before and (files := changed(before, code())):
        shown = "\n".join(f"  {name}" for name in files[:8])
        more = f"\n  and {len(files) - 8} more" if len(files) > 8 else ""
        raise UsageError(
            f"{root}: code has changed since its first run, and arms of unlike code are not compared:\n"
            f"{shown}{more}\n"
            "  go back to that code, or begin anew with another --study-dir"
        )


# --- in a child --------------------------------------------------------------------------------------------


def train(cells: Sequence[Cell], root: Path, together: bool) -> int:
    """Trains runs in this process, one after another or all in one program. Returns the exit code."""
    if together and len(cells) > 1:
        return _together(cells, root)
    from jaxlm.evaluate.inside import of_experiment
    from jaxlm.train.run import run

    failed = 0
    for cell in cells:
        tasks = of_experiment(cell.experiment) if cell.experiment.where.tasks else None
        try:
            if run(cell.experiment, run_dir=str(root / cell.folder), tasks=tasks):
                return AGAIN
        except Failure as failure:
            if len(cells) == 1:
                raise
            print(f"{cell.name} failed: {failure}", flush=True)
            failed = 1
    return failed


def _together(cells: Sequence[Cell], root: Path) -> int:
    from jaxlm.study.together import train_together
    from jaxlm.train.interruption import Interruption
    from jaxlm.train.run import prepared_data

    prepared = prepared_data(cells[0].experiment, _print)
    with Interruption() as interruption:
        interruption.training = True
        experiments, folders = [cell.experiment for cell in cells], [root / cell.folder for cell in cells]
        results = train_together(experiments, folders, prepared, _print, interrupted=interruption)
    for one in results:
        if one.status == "failed":
            print(f"{one.path}: {one.why}")
    states = {one.status for one in results}
    return AGAIN if "stopped" in states else int("failed" in states)


def _print(line: str) -> None:
    print(line, flush=True)


# --- seconds of a step -------------------------------------------------------------------------------------


def measured(study: Study, arms: dict[str, Experiment], root: Path, words: Sequence[str], say: Say) -> None:
    """Measures a training step of each arm by a short run in a process of its own, where it is not known; each is
    kept at once. Raises Failure where one fails, and SystemExit (75) when it is told to stop.
    """
    for arm, experiment in arms.items():
        if arm in known_seconds(arms, root):
            continue
        say(f"measuring a step of {arm}")
        log = log_of(root, f"{arm}/seconds")
        status, last = child([*words, "--only", f"{arm}/seconds"], log, say)
        if status == AGAIN:
            raise SystemExit(AGAIN)
        if status:
            raise Failure(f"{arm} could not be measured: {last} (all it said is in {log})")
        write_record(study, arms, root, {_timed(arm, experiment): float(last)})


def known_seconds(arms: dict[str, Experiment], root: Path) -> Seconds:
    """By arm, what was measured of these very experiments; arms as they are written, before budgets are equal."""
    found = read_record(root).get("seconds") or {}
    return {arm: found[key] for arm, one in arms.items() if (key := _timed(arm, one)) in found}


def _timed(arm: str, experiment: Experiment) -> str:
    return f"{arm}-{whole_hash(experiment)[:8]}"


def step_seconds(arm: str, experiment: Experiment, root: Path) -> float:
    """Median seconds of a training step, of a short run below the study's directory. Raises Failure where it was
    stopped before it told.
    """
    import numpy as np

    from jaxlm.runs.report.content import read, speed
    from jaxlm.train.run import run

    train = dataclasses.replace(experiment.train, steps=MEASURED)
    where = dataclasses.replace(experiment.where, every=Every(log=MEASURED // 8, evaluate=0, checkpoint=0))
    path = root / TIMED / _timed(arm, experiment)
    status = run(dataclasses.replace(experiment, train=train, where=where, samples=Samples()), run_dir=str(path))
    if status:
        raise SystemExit(status)
    _, rates = speed(read(path))
    if not len(rates):
        raise Failure(f"{path} has no two lines to tell the seconds of a step from: remove it")
    return train.batch * train.length / float(np.median(rates))
