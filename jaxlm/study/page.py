"""One self-contained page of a study, beside its tables."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import jaxlm
from jaxlm.config.experiment import Experiment
from jaxlm.config.study import Study
from jaxlm.runs.files import write_atomically
from jaxlm.runs.report.page import document
from jaxlm.runs.report.text import duration, plural, text
from jaxlm.study.budget import WITHIN
from jaxlm.study.plots import figures
from jaxlm.study.results import Result, Row
from jaxlm.study.run import read_record
from jaxlm.study.statistics import LEVEL
from jaxlm.study.table import BUDGETS, HEADER, budgets, fields, lines, number, runs_csv, signed, table_csv

PAGE, TABLE, RUNS = "report.html", "table.csv", "runs.csv"


def write(
    study: Study,
    arms: dict[str, Experiment],
    results: Sequence[Result],
    rows: Sequence[Row],
    root: Path,
    words: Sequence[str],
) -> Path:
    """Writes the page and both tables into the study's directory; returns the page's path."""
    write_atomically(root / TABLE, table_csv(rows))
    write_atomically(root / RUNS, runs_csv(study, results))
    write_atomically(root / PAGE, page(study, arms, results, rows, read_record(root), words))
    return root / PAGE


def page(
    study: Study,
    arms: dict[str, Experiment],
    results: Sequence[Result],
    rows: Sequence[Row],
    record: dict,
    words: Sequence[str],
) -> str:
    """The page as HTML."""
    parts = (
        _header(study, rows, results),
        _findings(study, rows),
        _section("Result", f"{study.metric}, {study.better} is better", HEADER, lines(study, rows), _method(study)),
        figures(study, rows, results),
        _section("Arms differ in", "and in nothing else", ("field", *arms), fields(arms)),
        _section("Budgets", f"equal {study.match}, to {WITHIN:.0%}", BUDGETS, budgets(arms), _time(study, rows)),
        _runs(study, results),
        _code(record),
    )
    command = text(" ".join(["jaxlm study", *words]), 400)
    day = datetime.datetime.now(datetime.UTC).date()
    footer = f"<footer><p><code>{command}</code></p><p>{day} · jaxlm {text(jaxlm.__version__)}</p></footer>"
    return document(f"{text(study.name, 120)} · jaxlm study", "\n".join(part for part in parts if part), footer)


def _header(study: Study, rows: Sequence[Row], results: Sequence[Result]) -> str:
    done = sum(one.status == "finished" for one in results)
    line = f"{len(rows)} arms from {plural(len(study.seeds), 'seed')} · {done} of {len(results)} runs finished"
    line += f" · equal {study.match} · {text(study.metric, 60)}"
    lost = [one.cell.name for one in results if one.status == "failed"]
    notice = (
        f'<p class="notice">Failed: {text(", ".join(lost), 500)}. The table is of the others.</p>' if lost else ""
    )
    if len(study.seeds) == 1:
        notice += '<p class="notice">One seed: no difference on this page can be told from noise.</p>'
    return f'<header><h1>{text(study.name, 120)}</h1><p class="muted">{line}</p>{notice}</header>'


def _findings(study: Study, rows: Sequence[Row]) -> str:
    """A sentence for each arm that was compared."""
    found = []
    for row in rows:
        if row.judged is None or row.judged.verdict == "not tested":
            continue
        judged, arm, baseline = row.judged, text(row.arm, 60), text(rows[0].arm, 60)
        by = signed(judged.paired.mean)
        if judged.verdict == "inside noise":
            found.append(
                f"<li><b>{arm}</b> is <b>inside noise</b>: {by}, where a difference of "
                f"{number(judged.detectable)} is found in four of five studies of this size</li>"
            )
        else:
            found.append(
                f'<li><b>{arm}</b> is <b class="{judged.verdict}">{judged.verdict}</b> than {baseline}: {by}</li>'
            )
    return f'<section><ul class="findings">{"".join(found)}</ul></section>' if found else ""


def _method(study: Study) -> str:
    return (
        "Differences are paired by seed: a seed draws the same initial parameters and the same rows for every arm. "
        "Intervals are Student's t, each for itself; p is that of a two-sided paired t test after Holm's "
        f"correction for all pairs, and below {LEVEL:g} an arm is better or worse. A difference as large as "
        "<i>detectable</i> is found in four of five studies of this size."
    )


def _section(title: str, small: str, header: Sequence[str], lines: Sequence[Sequence[str]], note: str = "") -> str:
    head = "".join(f'<th scope="col">{text(name, 80)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{text(line[0], 80)}</th>'
        + "".join(f"<td>{text(cell, 120)}</td>" for cell in line[1:])
        + "</tr>"
        for line in lines
    )
    told = f'<p class="small">{note}</p>' if note else ""
    return (
        f'<section><h2>{title} <small>{text(small, 120)}</small></h2><div class="wide"><table class="list">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{told}</section>"
    )


def _time(study: Study, rows: Sequence[Row]) -> str:
    """Seconds of training steps by arm; of a budget of seconds, how far they are from the baseline's."""
    spent = [row for row in rows if row.seconds]
    if not spent:
        return ""
    shown = ", ".join(f"{text(row.arm, 60)} {duration(row.seconds)}" for row in spent)
    told = f"Training steps took, as a mean over runs: {shown}."
    if study.match == "seconds":
        off = max(abs(row.seconds / spent[0].seconds - 1) for row in spent)
        told += f" At most {off:.1%} from the baseline's."
    return told


def _runs(study: Study, results: Sequence[Result]) -> str:
    found = [
        (one.cell.arm, str(one.cell.seed), one.status, number(one.value), f"{one.seconds:.1f}", one.cell.folder)
        for one in results
    ]
    table = _section("Runs", "", ("arm", "seed", "status", study.metric, "seconds", "directory"), found)
    return f'<section class="near"><details><summary>Runs</summary>{table}</details></section>'


def _code(record: dict) -> str:
    """Versions; the hash of every source file is in the study's record."""
    code = record.get("code", {})
    versions = ", ".join(f"{name} {value}" for name, value in code.items() if not name.endswith(".py"))
    files = sum(name.endswith(".py") for name in code)
    if not code:
        return ""
    told = f"Computed by {plural(files, 'source file')} of one state, {text(versions, 400)}."
    return f'<section><p class="small">{told}</p></section>'
