"""Answers in texts: where they stand, and the numbers that they are."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

FINAL = re.compile(r"####\s*([^\n]+)|\\boxed\{([^{}]*)\}")
"""How GSM8K and MATH mark a last result (arXiv:2110.14168, arXiv:2103.03874)."""
NUMBER = re.compile(r"(?:(?<![\w.,)])[-−]\s?)?[$€£]?(?<![\d.])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))")


def extract(text: str, pattern: str, take: Literal["first", "last"] = "first") -> str | None:
    """What the first group of the first or last match holds, the whole match if there is no group; without a
    pattern the text. None where nothing matches.
    """
    if not pattern:
        return text.strip()
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    match = found[0 if take == "first" else -1]
    groups = [each for each in match.groups() if each is not None] if match.re.groups else [match[0]]
    return groups[0].strip() if groups else None


def number(text: str) -> Decimal | None:
    """The number that a text is, without commas, a currency or percent sign and a period at its end."""
    try:
        value = Decimal(re.sub(r"[,$€£%\s]", "", text).rstrip("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def final_number(text: str) -> Decimal | None:
    """The number that a solution ends with: after its last mark, such as `#### 72`, else the last in the text."""
    marked = FINAL.findall(text)
    found = NUMBER.findall("".join(marked[-1]) if marked else text)
    return number(found[-1].replace("\N{MINUS SIGN}", "-")) if found else None
