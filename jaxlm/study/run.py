"""A study's runs, one process after another: what is finished is left, what fails is reported, the rest goes on."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxlm.config.codec import to_json
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Every, Experiment, Samples
from jaxlm.config.study import Study
from jaxlm.runs.directory import DONE
from jaxlm.runs.files import write_atomically
from jaxlm.study.budget import Seconds
from jaxlm.study.files import changed, code
from jaxlm.study.plan import Cell

RECORD, LOGS = "study.json", "logs"
AGAIN = 75
"""A child's exit code: saved, run me again."""
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
        status, last = _child([*words, "--only", part.name], _log(root, part.name), lambda line: say(f"  {line}"))
        if status == AGAIN:
            progress.stopped = True
            return progress
        if status:
            progress.failed[part.name] = last
            say(f"{part.name} failed: {last} (all it said is in {_log(root, part.name)}); the others go on")
        else:
            say(f"{part.name} finished in {time.monotonic() - began:.0f} s")
            for cell in part.cells:
                check(cell)
    return progress


def _log(root: Path, name: str) -> Path:
    return root / LOGS / f"{name.replace('/', '-')}.txt"


def _child(words: Sequence[str], log: Path, say: Say) -> tuple[int, str]:
    """Runs `jaxlm study` with these words, its output in a file; what it evaluates is said. Returns the exit code
    and the last line. SIGTERM is passed on, so that the run saves.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last = ""
    with log.open("w") as file, _process(words) as process:
        before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                if "held out" in line:
                    say(last)
            process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    return process.returncode, last


def _process(words: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxlm", "study", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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


def write_record(study: Study, arms: dict[str, Experiment], seconds: Seconds, root: Path) -> None:
    """Notes what is being compared, and the code that compares it. Raises UsageError for a directory that holds
    something else.
    """
    others = [] if (root / RECORD).exists() or not root.exists() else sorted(one.name for one in root.iterdir())
    if others:
        raise UsageError(f"{root} is no study and not empty (it has {others[0]}): name another with --study-dir")
    root.mkdir(parents=True, exist_ok=True)
    before = read_record(root)
    tree = {
        "name": study.name,
        "seeds": list(study.seeds),
        "code": before.get("code") or code(),
        "seconds": seconds,
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

    for cell in cells:
        tasks = of_experiment(cell.experiment) if cell.experiment.where.tasks else None
        if status := run(cell.experiment, run_dir=str(root / cell.folder), tasks=tasks):
            return status
    return 0


def _together(cells: Sequence[Cell], root: Path) -> int:
    from jaxlm.data.prepare import prepare
    from jaxlm.study.together import train_together
    from jaxlm.train.interruption import Interruption
    from jaxlm.train.setup import cache_directory

    first = cells[0].experiment
    size = {"rows": first.model.vocab, "length": first.train.length}
    prepared = prepare(first.data, first.tokenizer, cache_directory(), report=print, **size)
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


def measured(arms: dict[str, Experiment], root: Path, words: Sequence[str], say: Say) -> Seconds:
    """Seconds of a training step of each arm, by short runs in processes of their own. Raises Failure where one
    fails.
    """
    found: Seconds = dict(read_record(root).get("seconds") or {})
    for arm in arms:
        if arm in found:
            continue
        say(f"measuring a step of {arm}")
        log = _log(root, f"{arm}/seconds")
        status, last = _child([*words, "--only", f"{arm}/seconds"], log, say)
        if status:
            raise Failure(f"{arm} could not be measured: {last} (all it said is in {log})")
        found[arm] = float(last)
    return found


def step_seconds(experiment: Experiment, path: Path) -> float:
    """Median seconds of a training step, of a short run in the directory."""
    import numpy as np

    from jaxlm.runs.report.content import read, speed
    from jaxlm.train.run import run

    train = dataclasses.replace(experiment.train, steps=MEASURED)
    where = dataclasses.replace(experiment.where, every=Every(log=MEASURED // 8, evaluate=0, checkpoint=0))
    run(dataclasses.replace(experiment, train=train, where=where, samples=Samples()), run_dir=str(path))
    _, rates = speed(read(path))
    return train.batch * train.length / float(np.median(rates))
