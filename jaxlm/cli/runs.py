"""usage: jaxlm runs list [DIR] | show RUN | diff A B

Reads run directories; RUN, A and B are paths or names in runs/.

  list [DIR]    all runs of a directory (default: runs), the newest first
  show RUN      attempts, last metrics and where the time went
  diff A B      how the configs of two runs differ, and their last metrics side by side
"""

from __future__ import annotations

import difflib
import time
from pathlib import Path

from jaxlm.cli.text import bold, duration, table
from jaxlm.config.codec import difference
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.suggest import show as value_text
from jaxlm.runs.directory import read_experiment
from jaxlm.runs.goodput import breakdown
from jaxlm.runs.journal import read_metrics
from jaxlm.runs.ledger import RUNS, attempts, failed_tasks, final_metrics, find_run, run_directories, summarize

WORDS = {"list": ("list [DIR]", 0, 1), "show": ("show RUN", 1, 1), "diff": ("diff A B", 2, 2)}
"""Usage, and the least and most names that follow."""


def main(argv: list[str]) -> int:
    """One of the three; returns the exit code."""
    word, rest = (argv[0], argv[1:]) if argv else ("list", [])
    if word not in WORDS:
        close = difflib.get_close_matches(word, WORDS, 1, 0.4)
        hint = f"did you mean {close[0]}?" if close else "expected list, show or diff"
        raise UsageError(f"no command {word!r}; {hint}")
    usage, least, most = WORDS[word]
    if not least <= len(rest) <= most:
        raise UsageError(f"expected jaxlm runs {usage}, got {len(rest)} names")
    print({"list": _list, "show": _show, "diff": _diff}[word](*rest))
    return 0


def _list(directory: str = RUNS) -> str:
    if directory != RUNS and "://" not in directory and not Path(directory).is_dir():
        raise UsageError(f"no directory {directory}")
    rows = []
    for path in run_directories(directory):
        try:
            one = summarize(path)
        except Failure:  # a damaged run does not hide the others; `show` says what is wrong with it
            rows.append((0.0, (Path(path).name, "", "", "", "", "damaged", "")))
            continue
        seconds = time.time() - (one.written or 0.0)
        age = f"{duration(seconds)} ago" if seconds > 5 else "now"
        cells = (f"{one.steps}/{one.of}", _number(one.loss), _number(one.bits_per_byte), one.status, age)
        rows.append((one.written or 0.0, (one.name, one.hash, *cells)))
    if not rows:
        return f"no runs in {directory}" + ("; jaxlm run EXPERIMENT writes one" if directory == RUNS else "")
    rows.sort(key=lambda row: row[0], reverse=True)
    header = ("name", "hash", "steps", "loss", "bits/byte", "status", "written")
    return table(header, [cells for _, cells in rows])


def _show(name: str) -> str:
    path = find_run(name)
    one = summarize(path)
    parts = [f"{bold(path)}  {one.status}  step {one.steps} of {one.of}"]
    tries = attempts(path)
    resumed = {
        event["attempt"]: event["step"]
        for event in read_metrics(path, ("event",))
        if event.get("event") == "resumed"
    }
    rows = [
        (
            each["attempt"],
            each.get("started", ""),
            each.get("host", ""),
            _commit(each),
            resumed.get(each["attempt"], 0),
        )
        for each in tries
    ]
    if rows:
        parts.append(table(("attempt", "started", "host", "commit", "from step"), rows))
    metrics = final_metrics(path)
    if metrics:
        parts.append(table(("last", "value"), [(key, _number(value)) for key, value in metrics.items()]))
    if failed := failed_tasks(read_metrics(path, ("tasks",))):
        parts.append("\n".join(failed))
    seconds = breakdown(read_metrics(path, ("event",)))
    if seconds:
        total = sum(seconds.values()) or 1.0
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        rows = [(key, duration(value), f"{100 * value / total:.1f} %") for key, value in ordered]
        parts.append(table(("time", "spent", "share"), [*rows, ("total", duration(total), "100.0 %")]))
    return "\n\n".join(parts)


def _diff(first: str, second: str) -> str:
    one, two = find_run(first), find_run(second)
    names = (Path(one).name, Path(two).name) if Path(one).name != Path(two).name else (one, two)
    rows = [
        (path, value_text(before), value_text(after))
        for path, before, after in difference(read_experiment(one), read_experiment(two))
    ]
    parts = [table(("config", *names), rows) if rows else "the configs are the same"]
    a, b = final_metrics(one), final_metrics(two)
    rows = [(key, _number(a.get(key)), _number(b.get(key)), _gap(a.get(key), b.get(key))) for key in a | b]
    parts.append(table(("last", *names, "difference"), rows) if rows else "no metrics yet")
    return "\n\n".join(parts)


def _commit(attempt: dict) -> str:
    """Commit of the working directory, else of jaxlm's; with + where it had changes."""
    states = attempt.get("git") or {}
    state = states.get("directory") or states.get("jaxlm") or {}
    return state.get("commit", "-")[:8] + ("+" if state.get("dirty") else "")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}"


def _gap(a: float | None, b: float | None) -> str:
    return "-" if a is None or b is None else f"{b - a:+.4g}"
