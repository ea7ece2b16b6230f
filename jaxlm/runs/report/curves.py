"""Curves over the steps of a run, drawn by matplotlib in the colors of the page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlm.config.objective import (
    Classification,
    Contrastive,
    Distillation,
    MultiToken,
    NextSentence,
    ReplacedTokens,
)
from jaxlm.runs.report.content import POINTS, Content, Points, Record, series, speed
from jaxlm.runs.report.drawing import HELD, MISSING, MUTED, RULE, TRAIN, style, svg, tick
from jaxlm.runs.report.text import plural, text
from jaxlm.runs.report.verdict import METHODS

EXTRA = 4
"""Most panels for metrics that this page does not know."""
KNOWN = ("loss", "cross_entropy", "gradient_norm", "learning_rate", "step", "attempt", "time")
SIZE = (4.6, 2.2)


@dataclass(frozen=True)
class Panel:
    """One figure: a caption in HTML, and what is drawn."""

    title: str
    caption: str
    draw: Callable[[Any], None]
    """draw(axes)."""
    bad: int = 0
    """Values that are not finite."""


def curves(content: Content) -> str:
    """The section; one line if matplotlib is not installed, empty if nothing was recorded."""
    panels = [panel for panel in _panels(content) if panel is not None]
    if not panels:
        return ""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        return (
            f'<section><h2>Curves</h2><p class="notice">No curves: they need matplotlib ({text(error, 200)}). '
            f"<code>{text(MISSING)}</code>, then write the report again.</p></section>"
        )
    resumes = "; thin upright lines mark resumed attempts" if content.resumes else ""
    figures = []
    for i, panel in enumerate(panels):
        with matplotlib.rc_context(style(f"panel{i}")):
            figure = Figure(figsize=SIZE)
            axes = figure.add_axes((0.105, 0.125, 0.88, 0.835))
            panel.draw(axes)
            _finish(axes, content)
            drawing = svg(figure, panel.title)
        bad = f' <b class="bad">{plural(panel.bad, "value")} not finite</b>' if panel.bad else ""
        caption = f"<b>{text(panel.title, 60)}</b> {panel.caption}{bad}"
        figures.append(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>")
    return (
        f"<section><h2>Curves <small>over training steps{resumes}</small></h2>"
        f'<div class="curves">{"".join(figures)}</div></section>'
    )


# --- panels --------------------------------------------------------------------------------------------------


def _panels(content: Content) -> list[Panel | None]:
    known = [_loss(content), _bits(content)]
    known.append(_line(content.train, "gradient_norm", "Gradient norm", "before clipping", log=True))
    known.append(_line(content.train, "learning_rate", "Learning rate", "", zero=True))
    known.append(_speed(content))
    names = dict.fromkeys(
        name
        for one in content.train
        for name, value in one.items()
        if name not in KNOWN and isinstance(value, float)
    )
    found = [_line(content.train, name, name.replace("_", " "), "") for name in list(names)[:50]]
    return known + [panel for panel in found if panel is not None][:EXTRA]


def _loss(content: Content) -> Panel | None:
    steps, values, bad = series(content.train, "loss")
    at, held_out, bad_too = series(content.evaluate, "loss")
    if not len(values) and not len(held_out) and not bad + bad_too:
        return None

    def draw(axes: Any) -> None:
        shown = _draw(axes, steps, values, TRAIN)
        _draw(axes, at, held_out, HELD, dots=60)
        if len(shown) > 20:  # the first steps from the random start would flatten all others
            every = np.concatenate([shown, held_out])
            top, low = np.percentile(every, 98.5), every.min()
            if top > low:
                axes.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))

    keys = [("train", "training")] if len(values) else []
    keys += [("held", "held out")] if len(held_out) else []
    key = " ".join(f'<span class="line {color}">{name}</span>' for color, name in keys)
    return Panel("Loss", f"{_of_what(content)} {key}", draw, bad + bad_too)


def _of_what(content: Content) -> str:
    """The unit of a loss; a sum of unlike terms is of no one thing."""
    match content.experiment.objective:
        case Classification() | Contrastive():
            return "nats per text"
        case NextSentence() | ReplacedTokens() | MultiToken() | Distillation():
            return "nats"
    return "nats per token"


def _bits(content: Content) -> Panel | None:
    steps, values, bad = series(content.evaluate, "bits_per_byte")
    if len(values) < 2 and not bad:
        return None

    def draw(axes: Any) -> None:
        _draw(axes, steps, values, HELD, dots=60)
        top = max(values, default=1.0)
        for name, value in content.baselines.items():
            if min(values, default=0.0) * 0.6 < value < top * 1.25:
                axes.axhline(value, color=MUTED, linewidth=0.7, dashes=(4, 3))
                axes.annotate(
                    METHODS.get(name, name),
                    (1, value),
                    xycoords=("axes fraction", "data"),
                    xytext=(-2, 2.5),
                    textcoords="offset points",
                    ha="right",
                    color=MUTED,
                    parse_math=False,
                )

    return Panel("Bits per byte", "of held-out text", draw, bad)


def _line(records: list[Record], name: str, title: str, caption: str, log=False, zero=False) -> Panel | None:
    steps, values, bad = series(records, name)
    if (len(values) < 2 or (not log and not zero and np.ptp(values) == 0)) and not bad:
        return None

    def draw(axes: Any) -> None:
        if log and len(values) and values.min() > 0 and values.max() > 5 * values.min():
            axes.set_yscale("log")
        _draw(axes, steps, values, TRAIN)
        if zero and len(values) and values.min() >= 0 and values.max() > 0:
            axes.set_ylim(0, 1.08 * values.max())

    return Panel(title, text(caption), draw, bad)


def _speed(content: Content) -> Panel | None:
    steps, values = speed(content)
    if len(values) < 2:
        return None

    def draw(axes: Any) -> None:
        _draw(axes, steps, values, TRAIN)
        axes.set_ylim(0, 1.15 * np.percentile(values, 99))

    return Panel("Tokens per second", "between log lines, pauses included", draw)


# --- drawing -------------------------------------------------------------------------------------------------


def _draw(axes: Any, steps: Points, values: Points, color: str, dots: int = 3) -> Points:
    """The line, thinned to means within a band from least to greatest; returns what the line shows.

    Up to so many points have dots.
    """
    if not len(values):
        return values
    if len(values) > POINTS:
        parts = np.array_split(np.arange(len(values)), POINTS)
        low, high = (np.array([f(values[part]) for part in parts]) for f in (np.min, np.max))
        steps, values = (np.array([each[part].mean() for part in parts]) for each in (steps, values))
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(
        steps, values, color=color, linewidth=1.2, marker="o" if len(values) <= dots else None, markersize=3.2
    )
    return values


def _finish(axes: Any, content: Content) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for step in content.resumes:
        axes.axvline(step, color=MUTED, linewidth=0.5)
    end = max(content.step, 1)
    axes.set_xlim(0, end * 1.01)
    steps = (1, 2, 2.5, 5, 10)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=steps))
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
    else:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=7))
    for axis, (_, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_formatter(FuncFormatter(functools.partial(tick, high=high)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=RULE, linewidth=0.6)
