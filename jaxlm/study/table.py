"""The results of a study as tables: for people, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from jaxlm.config.experiment import Experiment
from jaxlm.config.study import Study
from jaxlm.config.suggest import show
from jaxlm.study.gate import derived, differences
from jaxlm.study.results import Result, Row

HEADER = ("arm", "n", "mean", "sd", "95 % interval", "difference", "95 % interval", "p", "detectable", "verdict")


def lines(study: Study, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each arm, under `HEADER`: p is corrected for all pairs, `detectable` the difference that a study
    of this size finds in four of five cases.
    """
    return [_line(row, first=row is rows[0]) for row in rows]


def _line(row: Row, first: bool) -> tuple[str, ...]:
    s, judged = row.summary, row.judged
    if s is None:
        return (row.arm, "0", *("-",) * 7, "failed" if row.failed else "not run")
    own = (row.arm, str(s.n), number(s.mean), number(s.sd), interval(s.low, s.high))
    if judged is None:
        verdict = "baseline" if first else "no pair with the baseline"
        return (*own, "-", "-", "-", "-", verdict + _failed(row))
    of = judged.paired
    verdict = "n = 1, no test" if judged.verdict == "not tested" else judged.verdict
    return (
        *own,
        signed(of.mean),
        interval(of.low, of.high, signed),
        "-" if judged.corrected is None else probability(judged.corrected),
        number(judged.detectable),
        verdict + _failed(row),
    )


def _failed(row: Row) -> str:
    return f"; seed {', '.join(map(str, row.failed))} failed" if row.failed else ""


def number(value: float | None) -> str:
    """Four decimals of what is near one, two digits of what is less and four of what is more."""
    if value is None:
        return "-"
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4f}" if abs(value) < 1e3 else f"{value:.4g}"


def signed(value: float | None) -> str:
    """With its sign."""
    return "-" if value is None else f"+{number(value)}" if value > 0 else number(value)


def interval(low: float | None, high: float | None, written: Any = number) -> str:
    """`low to high`, where there is one."""
    return "-" if low is None else f"{written(low)} to {written(high)}"


def probability(p: float) -> str:
    """Three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def fields(arms: dict[str, Experiment]) -> list[tuple[str, ...]]:
    """(path, value in each arm) of every field and derived number in which arms differ."""
    return [(path, *(_shown(row[name]) for name in arms)) for path, row in differences(arms).items()]


def budgets(arms: dict[str, Experiment]) -> list[tuple[str, ...]]:
    """(arm, steps, parameters, tokens, FLOPs a token, FLOPs) of each arm."""
    found = []
    for name, experiment in arms.items():
        d = derived(experiment)
        counts = (experiment.train.steps, d["parameters"], d["tokens"])
        found.append((name, *(f"{one:,}" for one in counts), f"{d['flops_per_token']:.4g}", f"{d['flops']:.4g}"))
    return found


BUDGETS = ("arm", "steps", "parameters", "tokens", "FLOPs a token", "FLOPs")


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else show(value)


def runs_csv(study: Study, results: Sequence[Result]) -> str:
    """A line for each run: arm, seed, status, the metric, seconds of training steps, directory."""
    header = ("arm", "seed", "status", study.metric, "seconds", "run")
    found = [
        (one.cell.arm, one.cell.seed, one.status, one.value, round(one.seconds, 3), one.cell.folder)
        for one in results
    ]
    return _csv(header, found)


def table_csv(rows: Sequence[Row]) -> str:
    """A line for each arm, in full precision; what there is none of is empty."""
    header = ("arm", "n", "mean", "sd", "low", "high", "pairs", "difference", "difference_sd", "difference_low")
    header += ("difference_high", "p", "p_corrected", "detectable", "verdict")
    found = []
    for row in rows:
        s, j = row.summary, row.judged
        own = (s.n, s.mean, s.sd, s.low, s.high) if s else (0, None, None, None, None)
        if j:
            of = j.paired
            other = (of.n, of.mean, of.sd, of.low, of.high, of.p, j.corrected, j.detectable, j.verdict)
        else:
            other = (*(None,) * 8, "baseline" if row is rows[0] else None)
        found.append((row.arm, *own, *other))
    return _csv(header, found)


def _csv(header: Sequence[str], found: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(found)
    return text.getvalue()
