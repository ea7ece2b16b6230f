"""usage: jaxlm contamination RUN_OR_TEXT FILE ... [--data DIR] [--n N] [--limit N] [--out FILE]

Which items of tasks share a run of words with what a model was trained on: a right answer may be memory.

  RUN_OR_TEXT          a run, whose base (--init) is searched too, an experiment's file, or training text:
                       a .txt or .jsonl file, or a glob of them
  FILE                 a file with `def tasks() -> tuple[Task, ...]`, or a text, as jaxlm eval takes
  --data DIR           where the tasks' data are; by default the directory JAXLM_DATA names
  --n 13               words of a run; texts of fewer, but of 8 or more, are looked for whole
  --limit N            only the first N items of each task
  --out FILE           writes what each item shares, as JSON
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.cli.generate import Parser
from jaxlm.cli.text import table
from jaxlm.config.codec import named
from jaxlm.config.data import Corpus, Data, TextFiles
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.load import load_all_tasks, load_experiment
from jaxlm.config.overrides import replace_at
from jaxlm.runs.directory import read_experiment
from jaxlm.runs.files import write_atomically
from jaxlm.runs.ledger import attempts, find_run

TEXTS = (".txt", ".jsonl")
SHOWN = 5
"""Items of a task that are named, those that share most."""


def parse(argv: list[str]) -> Any:
    """What was asked for. Raises UsageError."""
    parser = Parser(prog="jaxlm contamination", add_help=False, allow_abbrev=False)
    parser.add_argument("training", metavar="RUN_OR_TEXT")
    parser.add_argument("files", metavar="FILE", nargs="+")
    for name, kind, default in (("data", str, None), ("n", int, 13), ("limit", int, 0), ("out", str, None)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    found = parser.parse_args(argv)
    if found.n < 1 or found.limit < 0:
        raise UsageError(f"--n {found.n}, --limit {found.limit}: expected at least 1, and no negative number")
    if found.out and not Path(found.out).absolute().parent.is_dir():
        raise UsageError(f"--out {found.out}: there is no directory {Path(found.out).parent}")
    return found


def main(argv: list[str]) -> int:
    """Prints how many items of each task are contaminated, and which most. Returns the exit code."""
    asked = parse(argv)
    tasks = load_all_tasks(
        asked.files, lambda task: replace_at(task, "data.limit", asked.limit) if asked.limit else task
    )

    from jaxlm.evaluate.contamination import overlaps, texts_of
    from jaxlm.evaluate.intervals import share
    from jaxlm.evaluate.records import read, root_of

    parts, unknown = _trained_on(asked.training)
    groups = [[texts_of(item) for item in read(task.data, root_of(asked.data))] for task in tasks]
    found = overlaps([item for items in groups for item in items], _documents(parts), asked.n)
    rows, start, tree = [], 0, {}
    for task, items in zip(tasks, groups):
        own = found[start : start + len(items)]
        start += len(items)
        told = [one for one in own if one.runs]
        hit = sum(one.shared > 0 for one in told)
        low, high = share(hit, len(told))
        value = f"{hit / len(told):.4f}" if told else "-"
        rows.append((task.name, len(items), len(items) - len(told), hit, value, f"{low:.4f} to {high:.4f}"))
        tree[task.name] = [dataclasses.asdict(one) for one in own]
        for number in sorted(range(len(own)), key=lambda i: -own[i].share)[:SHOWN]:
            if (one := own[number]).shared:
                text = max(items[number], key=len)[:60]
                print(f"{task.name}, item {number}: {one.share:.0%} of it, in {one.document}: {text!r}")
    print(table(("task", "items", "too short", "contaminated", "share", "95 % interval"), rows))
    for one in unknown:
        print(f"not searched: what the parameters that it started from were trained on, {one}")
    if asked.out:
        whole = {
            "training": asked.training,
            "searched": [*parts],
            "not_searched": unknown,
            "n": asked.n,
            "items": tree,
        }
        write_atomically(asked.out, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return 0


def _trained_on(name: str) -> tuple[dict[str, Data], list[str]]:
    """What a run, an experiment or training text is trained on, by name, the runs that its parameters come from
    among them; and those of them whose training text is not known. Raises UsageError for a model of others.
    """
    if name.endswith(TEXTS):
        return {name: Corpus(source=TextFiles((name,)))}, []
    if name.endswith(".py"):
        experiment = load_experiment(name)
    else:
        from jaxlm.cli.models import is_model

        if is_model(Path(name)) or _imported(find_run(name)):
            raise UsageError(
                f"{name} is a model of others, and what it was trained on is not here: give the text itself, "
                ".txt or .jsonl files, in its place"
            )
        experiment = read_experiment(find_run(name))
    found, unknown = {name: experiment.data}, []
    while base := named(experiment.initial)[0]:
        try:
            experiment = read_experiment(base)
        except (UsageError, Failure) as error:
            unknown.append(f"{base}: {error}")
            break
        if _imported(base):
            unknown.append(f"{base}: it was imported")
            break
        if experiment.data not in found.values():
            found[base] = experiment.data
    return found, unknown


def _imported(run: str) -> bool:
    return any("imported" in one for one in attempts(run))


def _documents(parts: dict[str, Data]) -> Iterator[Any]:
    from jaxlm.evaluate.contamination import training_documents

    for name, data in parts.items():
        try:
            yield from training_documents(data)
        except (UsageError, Failure) as error:
            raise type(error)(f"{name}: {error}") from error
