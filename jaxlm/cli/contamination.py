"""usage: jaxlm contamination RUN_OR_TEXT FILE ... [--data DIR] [--n N] [--limit N] [--out FILE]

Which items of tasks share a run of words with what a model was trained on: a right answer may be memory.

  RUN_OR_TEXT          a run, an experiment's file, or training text: a .txt or .jsonl file, or a glob of them
  FILE                 a file with `def tasks() -> tuple[Task, ...]`, or a text, as jaxlm eval takes
  --data DIR           where the tasks' data are; by default the directory JAXLM_DATA names
  --n 13               words of a run; texts of fewer, but of 8 or more, are looked for whole
  --limit N            only the first N items of each task
  --out FILE           writes what each item shares, as JSON
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from jaxlm.cli.generate import Parser
from jaxlm.cli.text import table
from jaxlm.config.data import Corpus, Data, TextFiles
from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_all_tasks, load_experiment
from jaxlm.config.overrides import replace_at
from jaxlm.runs.files import write_atomically

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
    return found


def main(argv: list[str]) -> int:
    """Prints how many items of each task are contaminated, and which most. Returns the exit code."""
    asked = parse(argv)
    tasks = load_all_tasks(
        asked.files, lambda task: replace_at(task, "data.limit", asked.limit) if asked.limit else task
    )

    from jaxlm.evaluate.contamination import overlaps, texts_of, training_documents
    from jaxlm.evaluate.intervals import share
    from jaxlm.evaluate.records import read, root_of

    groups = [[texts_of(item) for item in read(task.data, root_of(asked.data))] for task in tasks]
    found = overlaps(
        [item for items in groups for item in items], training_documents(_data(asked.training)), asked.n
    )
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
    if asked.out:
        whole = {"training": asked.training, "n": asked.n, "items": tree}
        write_atomically(asked.out, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return 0


def _data(name: str) -> Data:
    """What a run or an experiment was trained on, or texts. Raises UsageError."""
    if name.endswith(TEXTS):
        return Corpus(source=TextFiles((name,)))
    if name.endswith(".py"):
        return load_experiment(name).data
    from jaxlm.runs.directory import read_experiment
    from jaxlm.runs.ledger import find_run

    return read_experiment(find_run(name)).data
