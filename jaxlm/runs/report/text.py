"""Text and numbers for the page: whatever a run holds comes out escaped, visible and short."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable
from typing import Any

THIN = "\u202f"
"""Between a number and its unit: narrow, and no line breaks there."""


def visible(string: str) -> str:
    """The string with every character shown that would otherwise hide, reorder text or not encode.

    Newlines and tabs stay; controls, marks of direction or of zero width and lone surrogates become their
    number.
    """
    return "".join(_visible(one) for one in string)


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or 32 <= code < 127:
        return character
    # controls, formats (bidirectional and zero-width), surrogates, private and unassigned ones, separators
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"[U+{code:04X}]"
    return character


def text(value: Any, limit: int | None = None) -> str:
    """A value as HTML text or the value of a quoted attribute, cut after `limit` characters."""
    string = value if isinstance(value, str) else str(value)
    if limit is not None and len(string) > limit:
        string = f"{string[:limit]} … ({len(string):,} characters)"
    return html.escape(visible(string), quote=True)


def number(value: Any) -> float | None:
    """The value as a finite number; None for what is missing, not finite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(tree: Any) -> dict[str, float]:
    """The finite numbers of a mapping; of anything else none."""
    found = {str(k): number(v) for k, v in tree.items()} if isinstance(tree, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def count(value: float) -> str:
    """A count with three digits and a unit: 4.26 M."""
    if value < 0:
        return f"−{count(-value)}"
    if value < 10_000:
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    for unit in ("k", "M", "G", "T", "P"):
        value /= 1000
        if value < 999.5:
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f}{THIN}{unit}"
    return power(value * 1e15)


def power(value: float) -> str:
    """A magnitude as HTML: 3.2 × 10¹⁵."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}{THIN}×{THIN}10<sup>{int(exponent)}</sup>".replace("-", "−")


def short(value: float | None, digits: int = 4) -> str:
    """So many significant digits at most; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}".replace("-", "−")


def percent(share: float) -> str:
    """A share of 1 with about three digits."""
    value = 100 * share
    if value == 0 or value >= 99.95:
        return f"{value:.0f}{THIN}%"
    if value < 0.001:
        return f"{power(value)}{THIN}%"
    digits = 1 if value >= 1 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}{THIN}%"


def duration(seconds: float) -> str:
    """A time in its two largest units: 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f}{THIN}s" if seconds >= 10 else f"{seconds:.2g}{THIN}s"
    if seconds < 3600:
        (whole, rest), units = divmod(round(seconds), 60), ("min", "s")
    elif seconds < 172_800:
        (whole, rest), units = divmod(round(seconds / 60), 60), ("h", "min")
    else:
        (whole, rest), units = divmod(round(seconds / 3600), 24), ("d", "h")
    return f"{whole:,}{THIN}{units[0]}" + (f" {rest}{THIN}{units[1]}" if rest else "")


def fitting(parts: Iterable[str], budget: int) -> list[str]:
    """The first of the parts that together take no more than `budget` bytes of UTF-8."""
    kept = []
    for part in parts:
        budget -= len(part.encode())
        if budget < 0:
            break
        kept.append(part)
    return kept


def plural(value: int, noun: str) -> str:
    """1 attempt, 2 attempts."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"
