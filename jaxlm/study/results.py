"""What the runs of a study have come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.study import Study
from jaxlm.runs.directory import CONFIG
from jaxlm.runs.report.content import Content, Points, read, series
from jaxlm.runs.report.text import numbers
from jaxlm.study.plan import Cell
from jaxlm.study.statistics import Judged, Summary, judge, paired, summary

Status = Literal["finished", "failed", "missing"]
RECORD = ("step", "attempt", "time")


@dataclass(frozen=True)
class Result:
    """One run, and its held-out metric after the last step and on the way there."""

    cell: Cell
    status: Status
    value: float | None = None
    steps: Points | None = None
    values: Points | None = None
    seconds: float = 0.0
    """Of training steps alone; a run of one program has its share of them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What it was trained on, as the run found it: text, tokenizer, rows."""


@dataclass(frozen=True)
class Row:
    """One arm among all: `judged` is None for the baseline and for an arm without a pair."""

    arm: str
    summary: Summary | None
    judged: Judged | None
    failed: tuple[int, ...]
    """Seeds whose run failed."""
    seconds: float
    """Mean of training steps alone, over the runs that finished."""


def result(cell: Cell, root: Path, metric: str, failed: bool) -> Result:
    """What a run's directory says; one whose metric ends as no finite number has failed.

    Raises UsageError for a metric that it does not record.
    """
    path = root / cell.folder
    if not (path / CONFIG).exists():
        return Result(cell, "failed" if failed else "missing")
    content = read(path)
    if content.status != "finished":
        return Result(cell, "failed" if failed else "missing")
    records = _records(content)
    last = next((one for one in reversed(records) if metric in one), {"step": None})
    if last["step"] != cell.experiment.train.steps:
        raise UsageError(f"{path} records no {metric!r} after its last step; metric can be {_recorded(records)}")
    steps, values, _ = series(records, metric)
    if not len(steps) or steps[-1] != last["step"]:
        return Result(cell, "failed")
    seconds = content.seconds.get("step", 0.0) / content.manifest.get("together", {}).get("runs", 1)
    return Result(cell, "finished", float(values[-1]), steps, values, seconds, _facts(content))


def _facts(content: Content) -> dict[str, Any]:
    kept = {name: content.manifest.get(name) for name in ("tokenizer", "data")}
    return kept | {"text": {name: value for name, value in content.data.items() if name != "baselines"}}


def refuse_unlike(results: Sequence[Result]) -> None:
    """Raises UsageError where runs that should have read the same text, by the same tokenizer and in the same rows
    did not: a file has changed between them.
    """
    seen: dict[tuple[str, str], Result] = {}
    for one in results:
        if one.status != "finished":
            continue
        experiment = one.cell.experiment
        text = repr((experiment.data, experiment.tokenizer))
        train = experiment.train
        rows = repr((text, experiment.packing, experiment.objective, train.batch, train.length, train.seed))
        for name, group in (("text", text), ("tokenizer", text), ("data", rows)):
            other = seen.setdefault((name, group), one)
            if one.facts[name] != other.facts[name]:
                raise UsageError(
                    f"{other.cell.folder} and {one.cell.folder} were not trained on the same {name}: files of "
                    "data or tokenizer have changed between them; remove the older runs, or begin anew with "
                    "another --study-dir"
                )


def _records(content: Content) -> list[dict[str, Any]]:
    """What was found on held-out text, and of tasks asked on the way each metric without its interval."""
    tasks = [
        {name: value[0] if isinstance(value, list) and value else value for name, value in one.items()}
        for one in content.tasks
    ]
    return [*content.evaluate, *tasks]


def _recorded(records: Sequence[dict[str, Any]]) -> str:
    names = dict.fromkeys(name for one in records for name in numbers(one) if name not in RECORD)
    return ", ".join(map(repr, names)) or "nothing: it was never evaluated"


def rows(study: Study, results: list[Result]) -> list[Row]:
    """A row for each arm; pairs are of the seeds that an arm and the baseline have both finished."""
    arms = list(dict.fromkeys(one.cell.arm for one in results))
    values = {
        arm: {one.cell.seed: one.value for one in results if one.cell.arm == arm and one.value is not None}
        for arm in arms
    }
    baseline, *others = arms
    pairs = {}
    for arm in others:
        both = [seed for seed in study.seeds if seed in values[arm] and seed in values[baseline]]
        if both:
            pairs[arm] = paired(*(np.array([values[name][seed] for seed in both]) for name in (arm, baseline)))
    judged = judge(pairs, study.better, len(others))
    return [
        _row(arm, values[arm], judged.get(arm), [one for one in results if one.cell.arm == arm]) for arm in arms
    ]


def _row(arm: str, values: dict[int, float], judged: Judged | None, results: list[Result]) -> Row:
    spent = [one.seconds for one in results if one.status == "finished"]
    return Row(
        arm=arm,
        summary=summary(np.array(list(values.values()))) if values else None,
        judged=judged,
        failed=tuple(one.cell.seed for one in results if one.status == "failed"),
        seconds=float(np.mean(spent)) if spent else 0.0,
    )
