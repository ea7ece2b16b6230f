"""A study's figures: differences from the baseline, every seed, and the way there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxlm.config.study import Study
from jaxlm.runs.report.drawing import INK, KINDS, MISSING, MUTED, RULE, style, svg, tick
from jaxlm.runs.report.text import text
from jaxlm.study.results import Result, Row

WIDTH = 4.6
DASHES = ("-", "--", ":")
"""After as many arms as there are colors the next dashes begin."""


def look(place: int) -> tuple[str, str]:
    """(color, dashes) of an arm."""
    return list(KINDS)[place % len(KINDS)], DASHES[place // len(KINDS) % len(DASHES)]


def figures(study: Study, rows: Sequence[Row], results: Sequence[Result]) -> str:
    """The section; one line if matplotlib is not installed."""
    values, arms = _values(results), [row.arm for row in rows]
    forest = functools.partial(_forest, rows=rows, values=values)
    seeds = functools.partial(_seeds, arms=arms, values=values)
    curves = functools.partial(_curves, rows=rows, results=results)
    try:
        parts = [
            _figure(study, "Difference from the baseline", _caption(rows), 0.55 + 0.3 * len(rows), forest),
            _figure(study, "Every seed", "one line a seed, over the arms", 2.2, seeds),
            _figure(study, "On the way", _key(rows), 2.2, curves),
        ]
    except ImportError as error:
        told = f"No figures: {text(error, 200)}. <code>{text(MISSING)}</code>"
        return f'<section><p class="notice">{told}</p></section>'
    title = f"Figures <small>{text(study.metric, 60)}, {study.better} is better</small>"
    return f'<section><h2>{title}</h2><div class="curves">{"".join(parts)}</div></section>'


def _caption(rows: Sequence[Row]) -> str:
    return f"from {text(rows[0].arm, 60)}, by seed, with the 95 % interval of the mean"


def _key(rows: Sequence[Row]) -> str:
    keys = (f'<span class="line {KINDS[look(i)[0]]}">{text(row.arm, 60)}</span>' for i, row in enumerate(rows))
    return f"means over seeds by step {' '.join(keys)}"


def _values(results: Sequence[Result]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for one in results:
        if one.value is not None:
            found.setdefault(one.cell.arm, {})[one.cell.seed] = one.value
    return found


def _figure(study: Study, title: str, caption: str, height: float, draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style(title)):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.16, 0.3 / height, 0.82, 1 - 0.4 / height))
        draw(axes)
        drawing = svg(figure, f"{title}, {study.metric}")
    return f"<figure><figcaption><b>{title}</b> {caption}</figcaption>{drawing}</figure>"


def _forest(axes: Any, rows: Sequence[Row], values: dict[str, dict[int, float]]) -> None:
    compared = [row for row in rows if row.judged]
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(compared):
        of, color = row.judged.paired, look(rows.index(row))[0]
        base, own = values[rows[0].arm], values[row.arm]
        each = [own[seed] - base[seed] for seed in own if seed in base]
        axes.plot(each, np.full(len(each), place - 0.18), "o", color=color, alpha=0.5, markersize=2.6)
        if of.low is not None:
            axes.plot([of.low, of.high], [place, place], color=color, linewidth=2)
        axes.plot([of.mean], [place], "o", color=color, markersize=5)
    axes.set_yticks(range(len(compared)), [row.arm for row in compared])
    axes.set_ylim(len(compared) - 0.4, -0.6)
    _grid(axes, "x")


def _seeds(axes: Any, arms: Sequence[str], values: dict[str, dict[int, float]]) -> None:
    shown = [arm for arm in arms if arm in values]
    for seed in sorted({seed for arm in shown for seed in values[arm]}):
        line = [values[arm].get(seed, np.nan) for arm in shown]
        axes.plot(range(len(shown)), line, color=MUTED, linewidth=0.7, marker="o", markersize=2.6)
    for place, arm in enumerate(shown):
        color = look(list(arms).index(arm))[0]
        axes.plot(
            [place], [np.mean(list(values[arm].values()))], "_", color=color, markersize=22, markeredgewidth=2
        )
    axes.set_xticks(range(len(shown)), shown)
    axes.set_xlim(-0.5, len(shown) - 0.5)
    _grid(axes, "y")


def _curves(axes: Any, rows: Sequence[Row], results: Sequence[Result]) -> None:
    tops = []
    for place, row in enumerate(rows):
        runs = [one for one in results if one.cell.arm == row.arm and one.value is not None]
        if not runs:
            continue
        steps = sorted(set.intersection(*(set(one.steps.tolist()) for one in runs)))
        each = np.array([[one.values[one.steps.tolist().index(step)] for step in steps] for one in runs])
        color, dashes = look(place)
        axes.plot(steps, each.mean(0), dashes, color=color, linewidth=1.2, marker="o", markersize=2.6)
        if len(runs) > 1:
            axes.fill_between(steps, each.min(0), each.max(0), color=color, alpha=0.15, linewidth=0)
        tops.append(max(steps))
    if tops:
        axes.set_xlim(0, 1.02 * max(tops))
        axes.xaxis.set_major_formatter(functools.partial(tick, high=max(tops)))
    _grid(axes, "y")


def _grid(axes: Any, axis: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
    chosen.set_major_formatter(FuncFormatter(functools.partial(tick, high=1.0)))
    axes.grid(axis=axis, color=RULE, linewidth=0.6)
