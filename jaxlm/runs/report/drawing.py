"""What every figure of a page shares: matplotlib's drawings in the colors of the style sheet."""

from __future__ import annotations

import io
import re
from typing import Any

from jaxlm.runs.report.text import THIN, text

COLORS = {"#000001": "ink", "#000002": "muted", "#000003": "rule", "#000004": "train", "#000005": "held"}
"""What matplotlib draws, and the style sheet's name for it."""
INK, MUTED, RULE, TRAIN, HELD = COLORS
KINDS = {
    f"#00001{i}": name for i, name in enumerate(("step", "data", "compile", "evaluate", "checkpoint", "other"))
}
"""Colors of things that have no order."""
MISSING = "pip install 'jaxlm[report]'"


def style(salt: str) -> dict[str, Any]:
    """Settings of matplotlib; `salt` makes ids that no other drawing of the page has."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 7.5,
        "text.parse_math": False,
        "axes.edgecolor": RULE,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "xtick.major.width": 0.8,
        "path.simplify_threshold": 0.3,
    }


def tick(value: float, _: int | None = None, *, high: float) -> str:
    """A label in the unit that suits the axis's upper end."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if high >= 10 * size:
            return f"{value / size:.4g}{THIN}{unit}" if value else "0"
    return f"{value:.4g}".replace("-", "−")


def svg(figure: Any, title: str) -> str:
    """The drawing as an element of the page: small, without ids that nobody names, colored by the style sheet."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", drawing).replace("xlink:href", "href")
    named = set(re.findall(r"(?:url\(|href=\")#([\w.-]+)", drawing))
    drawing = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in named else "", drawing)
    drawing = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _rounded, tag[0]), drawing)
    drawing = re.sub(r"font: [^;\"]*;?\s?", "", drawing)
    for color, name in (COLORS | KINDS).items():
        drawing = drawing.replace(color, f"var(--{name})")
    drawing = re.sub(
        r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg role="img" aria-label="{text(title, 60)}" \1>', drawing
    )
    return drawing.strip()


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
