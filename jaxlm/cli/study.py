"""usage: jaxlm study FILE [--study-dir DIR] [--dry-run] [--together] [--only PART] [OVERRIDES]

Trains every arm of a study from every seed, and says which differences are more than noise. Run again, it
leaves what is finished and goes on with the rest. Writes a table and a page to studies/NAME. Exit code 1
means that a run failed (the table is of the others), 75 that one was told to stop and has saved.

  FILE                     a file with `def study() -> Study`, or its module
  --study-dir DIR          write to another directory
  --dry-run                what arms differ in, their budgets, and which runs are left; nothing is trained
  --together               all seeds of an arm in one compiled program
  --only ARM[/SEED]        train these runs in this process and write no table (a cluster's job for each)

  --seeds 0 1 2            set a field of the study
  --base.train.steps 50    set a field of the experiment that its arms change
  --help                   after a study: all fields with their values and meaning
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxlm.cli import environment, experiment
from jaxlm.cli.text import table
from jaxlm.config.errors import AGAIN, UsageError
from jaxlm.config.load import load_study
from jaxlm.config.overrides import apply
from jaxlm.config.study import Study
from jaxlm.study import budget, plan, run

OPTIONS, BARE = ("study_dir", "only"), ("dry_run", "together")
USAGE = "jaxlm study FILE [--base.train.steps 50 ...]"
STUDIES = "studies"


@dataclasses.dataclass(frozen=True)
class Request:
    """A study as it was asked for."""

    study: Study
    root: Path
    words: list[str]
    """All of the command line but what says which part of it to do."""
    only: str | None
    dry: bool
    together: bool


def main(argv: list[str]) -> int:
    """Plans, trains what is left, and writes what was found. Returns the exit code."""
    asked = _parse(argv)
    if asked is None:
        return 0
    if asked.only and asked.only.endswith("/seconds"):
        return _measure(asked, argv)
    seconds = _seconds(asked) if asked.study.match == "seconds" else None
    arms = plan.plan(asked.study, seconds)
    cells = plan.cells(asked.study, arms)
    if asked.dry:
        _show(asked, arms, cells)
        return 0
    run.refuse_changed(asked.root)
    if asked.only:
        chosen = run.chosen(cells, asked.only)
        environment.prepare(["study", *argv], runs=len(chosen) if asked.together else 1)
        run.write_record(asked.study, arms, asked.root)
        return run.train(chosen, asked.root, asked.together)
    run.write_record(asked.study, arms, asked.root)
    _show(asked, arms, cells)
    progress = run.run_all(run.parts(cells, asked.together), asked.root, asked.words, _say, _check(asked))
    if progress.stopped:
        _say("stopped and saved: run the same command again to go on")
        return AGAIN
    return _conclude(asked, arms, cells, progress, argv)


def _parse(argv: list[str]) -> Request | None:
    """The request; None where help was asked for and is printed. Raises UsageError."""
    given, words = experiment.take(argv, OPTIONS, BARE)
    helps = any(word in ("-h", "--help") for word in words)
    words = [word for word in words if word not in ("-h", "--help")]
    if not words or words[0].startswith("-"):
        raise UsageError(f"the study comes first: {USAGE}")
    study = apply(load_study(words[0]), words[1:], OPTIONS + BARE)
    if helps:
        print(experiment.fields(study))
        return None
    root = Path(given.get("study_dir") or f"{STUDIES}/{study.name}")
    words = [*words, "--study-dir", str(root), *(["--together"] if "together" in given else [])]
    return Request(study, root, words, given.get("only"), "dry_run" in given, "together" in given)


def _check(asked: Request) -> Callable[[plan.Cell], object]:
    """Reads a finished run: a metric that it does not record, or text that is not the others', is an error before
    another is trained.
    """
    from jaxlm.study.results import refuse_unlike, result

    found = []

    def check(cell: plan.Cell) -> None:
        found.append(result(cell, asked.root, asked.study.metric, failed=False))
        refuse_unlike(found)

    return check


def _say(line: str) -> None:
    print(line, flush=True)


def _seconds(asked: Request) -> budget.Seconds:
    """Of a step by arm, measured where it is not known; nothing is trained for a look or a part."""
    arms = plan.written(asked.study)
    if not asked.only and not asked.dry:
        run.refuse_changed(asked.root)
        run.write_record(asked.study, arms, asked.root)
        run.measured(asked.study, arms, asked.root, asked.words, _say)
    return run.known_seconds(arms, asked.root)


def _measure(asked: Request, argv: list[str]) -> int:
    """Prints the seconds of a step of an arm, as the last line."""
    arms = plan.written(asked.study)
    name = asked.only.removesuffix("/seconds")
    if name not in arms:
        raise UsageError(f"--only {asked.only}: no such arm; there are {', '.join(arms)}")
    environment.prepare(["study", *argv])
    print(run.step_seconds(name, arms[name], asked.root))
    return 0


def _show(asked: Request, arms: dict, cells: Sequence[plan.Cell]) -> None:
    """What is compared: fields, budgets, runs."""
    from jaxlm.runs.report.text import plural
    from jaxlm.study.table import BUDGETS, budgets, fields

    study = asked.study
    seeds = plural(len(study.seeds), "seed")
    print(f"{study.name}: {len(arms)} arms x {seeds}, compared with {next(iter(arms))}\n")
    print("arms differ in\n" + table(("field", *arms), fields(arms)))
    print(f"\nequal {study.match}, to {budget.WITHIN:.0%}\n" + table(BUDGETS, budgets(arms)) + "\n")
    left = [cell.name for cell in cells if not run.finished(cell, asked.root)]
    print(f"{len(cells) - len(left)} of {len(cells)} runs are finished in {asked.root}", flush=True)


def _conclude(
    asked: Request, arms: dict, cells: Sequence[plan.Cell], progress: run.Progress, argv: Sequence[str]
) -> int:
    """Reads all runs, prints the table and writes the files."""
    from jaxlm.study import results
    from jaxlm.study.page import write
    from jaxlm.study.table import HEADER, lines

    failed = {cell.name for cell in cells if {cell.name, cell.arm} & set(progress.failed)}
    found = [results.result(cell, asked.root, asked.study.metric, cell.name in failed) for cell in cells]
    results.refuse_unlike(found)
    rows = results.rows(asked.study, found)
    print(f"\n{asked.study.metric}, {asked.study.better} is better\n" + table(HEADER, lines(asked.study, rows)))
    if len(asked.study.seeds) == 1:
        print("one seed: differences cannot be told from noise; add seeds")
    print(f"\n{write(asked.study, arms, found, rows, asked.root, argv)}")
    return 1 if progress.failed else 0
