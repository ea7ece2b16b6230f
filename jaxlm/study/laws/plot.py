"""A drawing of runs and of what was fitted to them, as one SVG file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.runs.report.drawing import MISSING
from jaxlm.study.laws.bootstrap import Fitted
from jaxlm.study.laws.form import Law
from jaxlm.study.laws.points import Points


def drawing(points: Points, fits: Mapping[str, Fitted], unit: str) -> str:
    """Losses by parameters, a color for each budget, with the first law; and each approach's optimum by FLOPs.

    Raises UsageError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"a drawing needs matplotlib ({error}): {MISSING}") from None
    settings = {"svg.fonttype": "none", "svg.hashsalt": "laws", "font.size": 8, "text.parse_math": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _losses(left, points, fits, matplotlib.colormaps["viridis"])
        left.set(xscale="log", xlabel="parameters", ylabel=f"loss ({unit})")
        _optima(right, points, fits)
        right.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="best number of parameters")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _losses(axes: Any, points: Points, fits: Mapping[str, Fitted], colors: Any) -> None:
    numbers = points.budgets()
    law = next((one.fit for one in fits.values() if isinstance(one.fit, Law)), None)
    shown = np.unique(numbers)
    for budget in shown:
        own = points[numbers == budget]
        color = colors(0.9 * budget / max(len(shown) - 1, 1))
        flops = np.exp(np.mean(np.log(own.flops)))
        # A legend of more than eight says nothing that the order of colors does not.
        axes.plot(own.parameters, own.losses, "o", color=color, markersize=3.5, label=f"{flops:.1e} FLOPs")
        if law is not None and own.sizes() > 1:
            sizes = np.geomspace(own.parameters.min() / 1.2, own.parameters.max() * 1.2, 60)
            axes.plot(sizes, law.loss(sizes, law.cost.tokens(flops, sizes)), color=color, linewidth=0.9)
    if len(shown) <= 8:
        axes.legend(frameon=False, fontsize=6.5)


def _optima(axes: Any, points: Points, fits: Mapping[str, Fitted]) -> None:
    flops = np.geomspace(points.flops.min(), 10 * points.flops.max(), 40)
    for i, (name, fitted) in enumerate(fits.items()):
        best = [fitted.fit.optimum(one).parameters for one in flops]
        spread = np.array([[one.optimum(c).parameters for c in flops] for one in fitted.again])
        low, high = np.percentile(spread, [5, 95], axis=0)
        axes.plot(flops, best, color=f"C{i}", linewidth=1.1, label=name)
        axes.fill_between(flops, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
    axes.plot(points.flops, points.parameters, ".", color="0.7", markersize=2.5, zorder=0)
    axes.legend(frameon=False, fontsize=6.5)
