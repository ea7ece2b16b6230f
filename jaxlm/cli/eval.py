"""usage: jaxlm eval MODEL_OR_RUN FILE ... [--data DIR] [--limit N] [--seed S] [--out DIR]
                  [--begin TOKEN] [OVERRIDES]
       jaxlm eval MODEL_OR_RUN --harness TASK.yaml ... [--data DIR] [--limit N] [--out DIR]

Asks a model the tasks of files, prints each number with its 95 % confidence interval, and writes numbers and
items to evaluations/NAME.json of the run; one of that name that was asked otherwise stays as NAME-HASH.json.
Nothing is downloaded.

  MODEL_OR_RUN         a run directory or its name in runs/, a directory of Hugging Face's, or a .gguf file
  FILE                 a file with `def tasks() -> tuple[Task, ...]`, or a text whose perplexity is asked
  --harness TASK.yaml  tasks of lm-evaluation-harness with local data (extra `eval`)
  --data DIR           where the tasks' data are; by default the directory JAXLM_DATA names
  --limit N            only the first N items of each task
  --seed S             draws these items, the worked examples, the samples and first clusters by another seed
  --out DIR            writes to another directory
  --begin TOKEN        a special token that texts begin with in place of the tokenizer's BOS

  --shots.count 0      set a field of all tasks of the files
  --form letters       their alternatives likewise
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxlm.cli import environment, models
from jaxlm.cli.experiment import take
from jaxlm.cli.text import duration, table
from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_all_tasks, refuse_twice
from jaxlm.config.overrides import apply, replace_at
from jaxlm.config.paths import leaves
from jaxlm.config.task_fit import check_fit
from jaxlm.config.tasks import Task

OPTIONS = ("data", "limit", "seed", "out", "begin")
USAGE = "jaxlm eval MODEL_OR_RUN FILE ..."


@dataclass(frozen=True)
class Request:
    """A command line."""

    model: str
    tasks: tuple[Task, ...]
    harness: tuple[str, ...]
    """Files of lm-evaluation-harness's tasks."""
    data: str | None
    limit: int
    out: str | None
    begin: str
    seed: int


def parse(argv: list[str]) -> Request:
    """Model and tasks. Raises UsageError for all that can be seen to be wrong without data and model."""
    given, words = take(argv, OPTIONS)
    harness, words = _harness(words)
    names = []
    while words and not words[0].startswith("--") and not (names and _switches(words[0])):
        names.append(words.pop(0))
    if not names or not (names[1:] or harness):
        raise UsageError(f"expected a model and what to ask it: {USAGE}; jaxlm eval --help tells more")
    if harness and (names[1:] or words):
        raise UsageError("tasks of lm-evaluation-harness are asked by themselves: one command for each kind")
    numbers = {name: _number(name, given.get(name)) for name in ("limit", "seed")}
    tasks = load_all_tasks(names[1:], lambda task: _changed(task, words, **numbers))
    places = {"data": given.get("data"), "out": given.get("out"), "begin": given.get("begin", "")}
    return Request(names[0], tasks, harness, limit=numbers["limit"] or 0, seed=numbers["seed"] or 0, **places)


def _harness(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The words that follow `--harness`, and the others."""
    if "--harness" not in words:
        return (), words
    start = words.index("--harness")
    end = next((i for i in range(start + 1, len(words)) if words[i].startswith("--")), len(words))
    if end == start + 1:
        raise UsageError("--harness has no value")
    return tuple(words[start + 1 : end]), words[:start] + words[end:]


def _switches(word: str) -> bool:
    """Whether it chooses an alternative, `shots:zero_shot`, and is no file."""
    return ":" in word and not Path(word).exists()


def _number(name: str, text: str | None) -> int | None:
    if text is not None and not text.isdigit():
        raise UsageError(f"--{name} {text}: expected a whole number")
    return None if text is None else int(text)


def _changed(task: Task, words: list[str], limit: int | None, seed: int | None) -> Task:
    """The task as it was asked for."""
    task = apply(task, words, OPTIONS)
    if limit is not None:
        task = replace_at(task, "data.limit", limit)
    if seed is not None:
        for path in leaves(task).keys() & {"data.seed", "shots.seed", "draw.seed", "seed", "reader.seed"}:
            task = replace_at(task, path, seed)
    return task


def main(argv: list[str]) -> int:
    """Checks everything that can be checked, then loads the model and asks. Returns the exit code."""
    request = parse(argv)
    environment.prepare(["eval", *argv])

    from jaxlm.evaluate.records import root_of

    root = root_of(request.data)
    asked = _of_harness(request, root) if request.harness else _own(request, root)

    from jaxlm.evaluate.subject import of_run
    from jaxlm.evaluate.write import DIRECTORY, write
    from jaxlm.runs.directory import read_experiment
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(request.model, ["eval", *argv]))
    check_fit(request.tasks, read_experiment(run))
    subject = of_run(run, request.begin)
    rows, written = [], []
    try:
        for answer in asked(subject):
            facts = _facts(request, run) | {"seconds": round(answer.seconds, 3)}
            notes = [*subject.notes, *answer.tree.get("notes", ())]
            tree = answer.tree | {"notes": notes}
            path, kept = write(request.out or f"{run}/{DIRECTORY}", answer.name, facts, tree)
            written += [str(path), *([f"{kept}: what it was before, asked otherwise"] if kept else [])]
            rows += [(answer.name, *_shown(metric)) for metric in answer.metrics]
            for note in notes:
                print(f"{answer.name}: {note}")
            print(f"{answer.name}: {len(answer.tree['items'])} items in {duration(answer.seconds)}", flush=True)
    finally:  # a task that fails does not hide those that were asked before it
        if rows:
            print(table(("task", "metric", "value", "95 % interval", "items"), rows))
        for line in written:
            print(line, flush=True)
    return 0


@dataclass(frozen=True)
class Answer:
    """What a task came to."""

    name: str
    metrics: Any
    tree: dict[str, Any]
    """For the file, items among it."""
    seconds: float


def _own(request: Request, root: Path) -> Callable[[Any], Iterator[Answer]]:
    """Reads all items; what is left wants the model."""
    from jaxlm.evaluate.ask import ask
    from jaxlm.evaluate.write import as_json

    asked = [ask(task, root) for task in request.tasks]

    def answers(subject: Any) -> Iterator[Answer]:
        for one in asked:
            start = time.monotonic()
            result = one.run(subject)
            yield Answer(one.task.name, result.metrics, as_json(result), time.monotonic() - start)

    return answers


def _of_harness(request: Request, root: Path) -> Callable[[Any], Iterator[Answer]]:
    try:
        from jaxlm.evaluate import harness
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "jaxlm":
            raise
        raise UsageError(f"--harness needs {error.name}: pip install 'jaxlm[eval]'") from None
    from jaxlm.evaluate.ask import named

    tasks = harness.tasks_of(request.harness, root)
    refuse_twice((file, str(task["task"])) for file, task in zip(request.harness, tasks))

    def answers(subject: Any) -> Iterator[Answer]:
        for task in tasks:
            start = time.monotonic()
            with named(str(task["task"])):
                found = harness.evaluate(subject, [task], request.limit, request.seed)
            for name, metrics in harness.metrics(found).items():
                numbers = [asdict(one) for one in metrics]
                tree = {"harness": found["configs"][name], "limit": request.limit, "seed": request.seed}
                tree |= {"metrics": numbers, "items": found["samples"][name]}
                yield Answer(name, metrics, tree, time.monotonic() - start)

    return answers


def _shown(metric: Any) -> tuple[str, str, str, str]:
    ends = "-" if math.isnan(metric.low) else f"{metric.low:.4f} to {metric.high:.4f}"
    return (metric.name, f"{metric.value:.4f}", ends, str(metric.n))


def _facts(request: Request, run: str) -> dict[str, Any]:
    """Which model was asked, and by which code."""
    import jaxlm
    from jaxlm.runs.digest import parameters
    from jaxlm.runs.manifest import git

    code = git(Path(jaxlm.__file__).parent) or {}
    return {
        "run": run,
        "parameters": parameters(run),
        "begin": request.begin or None,
        "version": jaxlm.__version__,
        "git": {name: code.get(name) for name in ("commit", "dirty")},
    }
