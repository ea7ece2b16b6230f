"""Runs and tables as points: what N, D, C and the loss are of."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.flops import active_parameters, flops_of, parameters
from jaxlm.config.model import Model
from jaxlm.runs.directory import read_experiment, status
from jaxlm.runs.journal import read_metrics
from jaxlm.study.laws.points import Cost, Points, join

Count = Literal["all", "without_embedding"]
COUNTS: tuple[Count, ...] = get_args(Count)
NEEDED = ("parameters", "tokens", "loss")
APART = ("embedding", "positions", "types", "head")
"""Components that `without_embedding` leaves out."""


@dataclass(frozen=True)
class Data:
    """A curve for each run, in the order of steps; the last point of each is the run's."""

    curves: tuple[Points, ...]
    names: tuple[str, ...]
    about: str
    """What N counts, and where C is from."""

    def points(self) -> Points:
        """The ends of all runs."""
        return join([curve[-1:] for curve in self.curves])


def count(model: Model, which: Count) -> int:
    """Parameters that one token meets: all, or without the tables of tokens and positions and the head (Kaplan et
    al. 2020, arXiv:2001.08361; Hoffmann et al. count all).
    """
    if which == "all":
        return active_parameters(model)
    by_part = parameters(model)
    return active_parameters(model) - sum(by_part.get(part, 0) for part in APART)


def of_runs(directories: Sequence[str], which: Count = "all", loss: str = "loss") -> Data:
    """Losses on held-out text of finished runs; C is `config.flops.flops_of` times tokens.

    Raises UsageError for a run that is not finished, begins from another's parameters or has no such loss.
    """
    curves = []
    for directory in directories:
        experiment = read_experiment(directory)
        if status(directory) != "finished":
            raise UsageError(f"{directory} is not finished: run it to its end, or leave it out")
        if experiment.initial:
            raise UsageError(f"{directory} begins from the parameters of {experiment.initial}: leave it out")
        records = [one for one in read_metrics(directory, ("evaluate",)) if one["step"] > 0]
        if not records or not all(loss in one for one in records):
            known = sorted({name for one in records for name, value in one.items() if isinstance(value, float)})
            raise UsageError(f"{directory} has no held-out {loss!r}; it has {', '.join(known) or 'none'}")
        steps = np.array([one["step"] for one in records], np.float64)
        tokens = steps * experiment.train.batch * experiment.train.length
        n = np.full(len(steps), float(count(experiment.model, which)))
        flops = flops_of(experiment)["training"] * tokens
        curves.append(Points(n, tokens, flops, np.array([one[loss] for one in records])))
    counted = "all that a token meets" if which == "all" else "those in layers, no embedding and no head"
    return Data(tuple(curves), tuple(directories), f"N counts parameters: {counted}; C is by closed forms")


def of_table(path: str) -> Data:
    """Rows of a .csv file with the columns parameters, tokens, loss, and where there are flops and run.

    Rows of one `run` are its training curve; without it each row is a run. Without flops C is 6 N D. Raises
    UsageError for a missing file or column and for a cell that is no number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is no text in UTF-8") from None
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [name.strip().lower() for name in table.fieldnames or ()]
    table.fieldnames = columns
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UsageError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}, and it needs "
            f"{', '.join(NEEDED)}, and may have flops and run"
        )
    names = [name for name in (*NEEDED, "flops") if name in columns]
    runs: dict[str, list[dict[str, float]]] = {}
    for line, row in enumerate(table, 2):
        found = {name: _number(row[name], f"{path}:{line}: {name}") for name in names}
        found.setdefault("flops", float(Cost().flops(found["parameters"], found["tokens"])))
        runs.setdefault(row.get("run") or f"row {line}", []).append(found)
    if not runs:
        raise UsageError(f"{path} has no rows")
    c = "is its column flops" if "flops" in columns else "is 6 N D, as there is no column flops"
    return Data(tuple(map(_curve, runs.values())), tuple(runs), f"N and D are those of {path}; C {c}")


def _curve(rows: list[dict[str, float]]) -> Points:
    ordered = sorted(rows, key=lambda row: row["tokens"])
    return Points(*(np.array([row[name] for row in ordered]) for name in ("parameters", "tokens", "flops", "loss")))


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise UsageError(f"{where} is {text!r}: expected a positive number")
    return value
