"""What was run, on what: the resolved config, the corpus by fate, the attempts and their manifest."""

from __future__ import annotations

import json
from typing import Any

import jaxlm
from jaxlm.config.codec import flat, to_json
from jaxlm.runs.ledger import failed_tasks
from jaxlm.runs.report.content import Content, Record
from jaxlm.runs.report.text import count, fitting, number, numbers, percent, plural, short, text

DIFF = 30_000
"""Most characters of uncommitted changes on the page."""
PART = 100_000
"""Most bytes of a table's rows."""


def evaluations(content: Content) -> str:
    """The held-out numbers behind the curves, folded; of many evaluations some, the last included."""
    names = dict.fromkeys(name for one in content.evaluate for name in numbers(one))
    names = [name for name in names if name not in ("step", "attempt", "time")][:8]
    if not names:
        return ""
    stride = -(-len(content.evaluate) // 30)
    rows = ""
    for one in content.evaluate[::-1][::stride][::-1]:
        cells = "".join(f"<td>{short(number(one.get(name)), 5)}</td>" for name in names)
        rows += f"<tr><td>{one['step']:,}</td>{cells}</tr>"
    head = "".join(f'<th scope="col">{text(name.replace("_", " "), 40)}</th>' for name in ["step", *names])
    table = f'<table class="list numbers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return (
        '<section class="near"><details><summary>Held-out numbers</summary>'
        f'<div class="wide">{table}</div></details></section>'
    )


def tasks(content: Content) -> str:
    """What tasks came to: of each metric the newest value, its interval, and values before it; and which failed."""
    names = dict.fromkeys(name for one in content.tasks for name, found in one.items() if isinstance(found, list))
    rows = ""
    for name in list(names)[:60]:
        found = [(one["step"], values) for one in content.tasks if len(values := _ends(one.get(name))) == 3]
        if not found:
            continue
        step, (value, low, high) = found[-1]
        stride = -(-len(found) // 12)
        before = " ".join(short(values[0]) for _, values in found[::-1][::stride][::-1])
        rows += (
            f"<tr><td>{text(name, 80)}</td><td>{step:,}</td><td>{short(value)}</td>"
            f"<td>{short(low)} to {short(high)}</td><td>{before}</td></tr>"
        )
    told = "".join(f"<p>{text(line, 400)}</p>" for line in failed_tasks(content.tasks)[:20])
    if not rows and not told:
        return ""
    columns = ("task", "step", "value", "95 % interval", "so far")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    table = f'<table class="list numbers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<section><h2>Tasks</h2><div class="wide">{table if rows else ""}</div>{told}</section>'


def _ends(values: Any) -> list[float]:
    """The numbers of a list."""
    given = values if isinstance(values, list) else []
    return [found for one in given if (found := number(one)) is not None]


def config(content: Content) -> str:
    """The resolved config, a table for each part of the experiment."""
    groups: dict[str, dict[str, Any]] = {"experiment": {}}
    for name, part in to_json(content.experiment).items():
        if isinstance(part, dict):
            groups[name] = flat(part)
        else:
            groups["experiment"][name] = part
    tables = []
    for group, leaves in groups.items():
        cells = (
            f'<tr><th scope="row">{text(path or "class", 80)}</th><td>{_value(value)}</td></tr>'
            for path, value in leaves.items()
        )
        rows = "".join(fitting(cells, PART))
        tables.append(f"<table><caption>{text(group)}</caption><tbody>{rows}</tbody></table>")
    return f'<section><h2>Resolved config</h2><div class="columns">{"".join(tables)}</div></section>'


def corpus(content: Content) -> str:
    """Documents by fate; empty if the run recorded none."""
    fates = {name: value for name, value in numbers(content.data.get("documents")).items() if value > 0}
    total = sum(fates.values())
    if not total:
        return ""
    rows = "".join(
        f'<tr{_kept(name)}><th scope="row">{text(name.replace("_", " "), 60)}</th>'
        f'<td class="bar"><i style="width:{100 * value / max(fates.values()):.2f}%"></i></td>'
        f"<td>{value:,.0f}</td><td>{percent(value / total)}</td></tr>"
        for name, value in sorted(fates.items(), key=lambda item: (item[0] not in ("train", "held_out"), -item[1]))[
            :40
        ]
    )
    sizes = [
        (name.replace("_", " "), found)
        for name, value in content.data.items()
        if (found := number(value)) is not None and found > 0
    ]
    note = " · ".join(f"{text(name, 40)} {count(value)}" for name, value in sizes[:8])
    line = f'<p class="small">{note}</p>' if note else ""
    return (
        f"<section><h2>Corpus <small>{plural(int(total), 'document')} by fate</small></h2>"
        f'<table class="bars fates"><tbody>{rows}</tbody></table>{line}</section>'
    )


def _kept(name: str) -> str:
    return ' class="mine"' if name in ("train", "held_out") else ""


def attempts(content: Content) -> str:
    """A line for each attempt; nothing more is said of a run that had only one."""
    if len(content.attempts) < 2:
        return ""
    rows = "".join(
        f"<tr><td>{text(one.get('attempt', ''), 9)}</td><td>{text(one.get('started', ''), 25)}</td>"
        f"<td>{text(one.get('host', ''), 60)}</td><td>{text(_devices(one), 80)}</td>"
        f"<td><code>{text(_commit(one), 12)}</code></td></tr>"
        for one in content.attempts[-40:]
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("attempt", "started", "host", "devices", "commit"))
    return (
        f'<section><h2>Attempts</h2><div class="wide"><table class="list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _devices(attempt: Record) -> str:
    found = attempt.get("devices")
    if not isinstance(found, list):
        return "–"
    kinds = {str(one): found.count(one) for one in found}
    return ", ".join(f"{many} × {kind}" for kind, many in kinds.items())


def _states(attempt: Record) -> list[tuple[str, Record]]:
    found = attempt.get("git")
    return [(k, v) for k, v in found.items() if isinstance(v, dict)] if isinstance(found, dict) else []


def _commit(attempt: Record) -> str:
    """Commit of the working directory, else of the package; + where it had changes."""
    states = [state for _, state in _states(attempt)]
    return f"{str(states[0].get('commit'))[:8]}{'+' if states[0].get('dirty') else ''}" if states else "–"


def manifest(content: Content) -> str:
    """The newest attempt's manifest, folded."""
    slots = [(name, value) for name, value in content.manifest.items() if name not in ("packages", "git", "where")]
    for name, state in _states(content.manifest):
        slots.append((f"git, {name}", {key: value for key, value in state.items() if key != "diff"}))
    if not slots:
        return ""
    rows = "".join(fitting((_row(name, value) for name, value in slots), PART))
    installed = content.manifest.get("packages")
    listed = [f"{name} {version}" for name, version in installed.items()] if isinstance(installed, dict) else []
    return (
        '<section><details><summary><h2>Manifest</h2></summary><table class="manifest"><tbody>'
        f"{rows}</tbody></table>{_packages(listed)}{_diffs(content.manifest)}</details></section>"
    )


def _row(name: str, value: Any) -> str:
    return f'<tr><th scope="row">{text(name, 60)}</th><td>{_value(value, 1500)}</td></tr>'


def _packages(listed: list[str]) -> str:
    if not listed:
        return ""
    words = text(", ".join(listed), 15_000)
    return f'<h3>{plural(len(listed), "package")}</h3><p class="small">{words}</p>'


def _diffs(found: Record) -> str:
    """The uncommitted changes, the beginning of them if they are long."""
    parts, left = [], DIFF
    for name, state in _states(found):
        diff = state.get("diff")
        if isinstance(diff, str) and diff:
            cut = f"\n… {len(diff) - left:,} more characters in manifest.json" if len(diff) > left else ""
            parts.append(f"<h3>Uncommitted changes, {text(name, 60)}</h3><pre>{text(diff[:left])}{cut}</pre>")
            left = max(left - len(diff), 0)
    return "".join(parts)


def footer(content: Content) -> str:
    """The hash of what was computed, and the version that wrote the page."""
    return (
        f"<footer><p>hash of what is computed <code>{text(content.hash, 64)}</code></p>"
        f"<p>{text(content.path.name, 200)} · jaxlm {text(jaxlm.__version__)}</p></footer>"
    )


def _value(value: Any, limit: int = 300) -> str:
    if value is None:
        return '<span class="muted">none</span>'
    if isinstance(value, str) and value:
        return text(value, limit)
    return text(json.dumps(value, ensure_ascii=False), limit)
