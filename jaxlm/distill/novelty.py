"""Answers that say something new: ROUGE-L with all that was kept before (Self-Instruct, arXiv:2212.10560)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from jaxlm.distill.sample import Sample

_ALONE = "぀-ヿ㐀-鿿가-힣"
WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
"""Words, and each character of writing that has no spaces."""


@dataclass(frozen=True)
class Words:
    """A text as it is compared."""

    words: tuple[str, ...]
    counted: frozenset[tuple[str, int]]
    """Each word with how often it stood before: what two texts share of these bounds what they share in order."""

    @classmethod
    def of(cls, text: str) -> Words:
        """Case folded, without punctuation."""
        found, met, counted = WORD.findall(text.casefold()), Counter(), []
        for word in found:
            counted.append((word, met[word]))
            met[word] += 1
        return cls(tuple(found), frozenset(counted))


def rouge_l(one: Words, other: Words) -> float:
    """The F-measure of the longest common subsequence: 2 LCS / (words of both); 0 without words (Lin 2004,
    "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, beta = 1).
    """
    total = len(one.words) + len(other.words)
    return 2 * _common(one.words, other.words) / total if total else 0.0


def _common(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row of the table at once in the bits of an integer (Hyyro 2004,
    "Bit-parallel LCS-length computation revisited").
    """
    places: defaultdict[Hashable, int] = defaultdict(int)
    for place, word in enumerate(one):
        places[word] |= 1 << place
    whole = (1 << len(one)) - 1
    row = whole
    for word in other:
        if match := places.get(word, 0):
            common = row & match
            row = ((row + common) | (row - common)) & whole
    return len(one) - row.bit_count()


def novel(threshold: float, group: Callable[[Sample], Hashable], pool: Sequence[str] = ()) -> Callable[..., list]:
    """The filter that keeps samples whose ROUGE-L with each sample kept before them, of the same group, and with
    each text of the pool is below a threshold.

    Every pair is compared: ten thousand samples of a hundred words in one group take minutes.
    """
    known = [Words.of(text) for text in pool]

    def verdicts(samples: Sequence[Sample]) -> list[str | None]:
        kept: defaultdict[Hashable, list[Words]] = defaultdict(list)
        found: list[str | None] = []
        for sample in samples:
            words, near = Words.of(sample.text), kept[group(sample)]
            old = any(_alike(words, other, threshold) for others in (known, near) for other in others)
            found.append("alike" if old else None)
            if not old:
                near.append(words)
        return found

    return verdicts


def _alike(one: Words, other: Words, threshold: float) -> bool:
    total = len(one.words) + len(other.words)
    if not total or 2 * min(len(one.words), len(other.words)) < threshold * total:
        return False
    if 2 * len(one.counted & other.counted) < threshold * total:
        return False
    return rouge_l(one, other) >= threshold
