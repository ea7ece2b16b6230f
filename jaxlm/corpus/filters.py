"""Cleaning rules: pure functions `document -> verdict`, where a verdict is None (keep) or the reason to drop.

Each rule looks at one document only, so the same functions run in a loop here and in a map on a cluster.
The repetition rule follows the idea of Gopher's filters (Rae et al. 2021, arXiv:2112.11446, table A1) with
one change: only third and later occurrences count, because code is full of honest pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np

from jaxlm.config.data import Filters
from jaxlm.corpus.documents import Document, Raw
from jaxlm.corpus.ngrams import hashes, occurrence, words

CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffd]")
"""C0, C1 and delete, but for tab, newlines, form feed and return; and the replacement character."""


def verdict(document: Raw, config: Filters) -> str | None:
    """The first rule that the document breaks, cheapest rule first, or None."""
    if not document.raw.strip():
        return "empty"
    if len(document.raw) > 4 * config.max_chars:  # A character has at most four bytes: no need to decode.
        return "too long"
    try:
        text = document.raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not utf-8"
    for reason, breaks in RULES:
        if breaks(text, config):
            return reason
    return None


def clean(documents: Iterable[Raw], config: Filters) -> tuple[list[Document], Counter[str]]:
    """Documents that pass every rule, in order, and how many were dropped for each reason."""
    kept, reasons = [], Counter()
    for document in documents:
        reason = verdict(document, config)
        if reason is None:
            kept.append(Document(document.name, document.raw.decode("utf-8")))
        else:
            reasons[reason] += 1
    return kept, reasons


def too_short(text: str, config: Filters) -> bool:
    return len(text) < config.min_chars


def too_long(text: str, config: Filters) -> bool:
    return len(text) > config.max_chars


def binary(text: str, config: Filters) -> bool:
    """Control characters, or the replacement characters of an earlier wrong decoding."""
    return CONTROL.search(text) is not None


_PLAIN = bytes(b for b in range(256) if b > 127 or chr(b).isalnum() or chr(b).isspace())
_FOREIGN_SYMBOL = re.compile(r"[^\x00-\x7f\w\s]")


def symbols(text: str, config: Filters) -> bool:
    """Too many characters that are neither letters, digits nor white space."""
    count = len(text.encode().translate(None, delete=_PLAIN))
    if not text.isascii():
        count += len(_FOREIGN_SYMBOL.findall(text))
    return count > config.max_symbols * len(text)


def repetition(text: str, config: Filters) -> bool:
    """Too much text in lines or 10-grams that occurred twice before, or in one single 4-gram."""
    return max(_repeated_lines(text), _repeated_ngrams(text)) > config.max_repetition


def _repeated_lines(text: str) -> float:
    """Share of characters in third and later occurrences of a line, white space at its ends aside."""
    seen: Counter[str] = Counter()
    repeated = total = 0
    for line in map(str.strip, text.splitlines()):
        seen[line] += 1
        total += len(line)
        repeated += len(line) if seen[line] > 2 else 0
    return repeated / max(total, 1)


def _repeated_ngrams(text: str) -> float:
    """The larger of two shares of words: in repeated 10-grams, and in the commonest 4-gram."""
    ids = words([text])[0]
    share = 0.0
    if len(ids) >= 10:
        late = occurrence(hashes(ids, 10)) >= 2
        edges = np.zeros(len(ids) + 1, np.int64)
        edges[: len(late)] += late
        edges[10 : 10 + len(late)] -= late
        share = float((np.cumsum(edges)[:-1] > 0).mean())
    if len(ids) >= 4:
        commonest = int(occurrence(hashes(ids, 4)).max()) - 1
        share = max(share, 4 * commonest / len(ids))
    return share


def language(text: str, config: Filters) -> bool:
    """Natural-language lines are confidently in a language that is not wanted.

    Source code has no language, but its comments do: only lines of prose are judged, and a document with
    under 100 characters of them is kept.
    """
    if not config.languages:
        return False
    prose = _prose(text)
    if len(prose) < 100:
        return False
    code, probability = _identifier().classify(prose)
    # "zxx" is no linguistic content at all: not evidence of another language.
    return code not in (*config.languages, "zxx") and probability >= 0.9


def _prose(text: str, limit: int = 1000) -> str:
    """Lines that are words and little else (at least 25 characters), or mostly in a script beyond ASCII."""
    lines, size = [], 0
    for line in text[:200_000].splitlines():
        line = line.strip(" \t#*>\"'")
        if size > limit:
            break
        plain = len(line) >= 25 and len(_WORDS.findall(line)) >= 0.93 * len(line)
        if plain or (not line.isascii() and 2 * sum(c.isalpha() and c > "\x7f" for c in line) >= len(line)):
            lines.append(line[: limit + 1])
            size += len(line)
    return "\n".join(lines)


_WORDS = re.compile(r"[^\W\d_]|[ ,.'\-]")


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


RULES = (
    ("too short", too_short),
    ("too long", too_long),
    ("binary", binary),
    ("symbols", symbols),
    ("repetition", repetition),
    ("language", language),
)
