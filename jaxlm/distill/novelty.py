"""Answers that say something new: ROUGE-L with all that was kept before (Self-Instruct, arXiv:2212.10560)."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

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
    """
    given = _Kept(threshold)
    for text in pool:
        given.add(Words.of(text))

    def verdicts(samples: Sequence[Sample]) -> list[str | None]:
        kept: defaultdict[Hashable, _Kept] = defaultdict(lambda: _Kept(threshold))
        found: list[str | None] = []
        for sample in samples:
            words, near = Words.of(sample.text), kept[group(sample)]
            old = given.holds(words) or near.holds(words)
            found.append("alike" if old else None)
            if not old:
                near.add(words)
        return found

    return verdicts


class _Kept:
    """Texts, and by each counted word those that have it: few of them are alike enough to be compared in order."""

    def __init__(self, threshold: float):
        self.threshold, self.texts = threshold, []
        self.sizes, self.having = array("q"), defaultdict(lambda: array("q"))

    def add(self, words: Words) -> None:
        for one in words.counted:
            self.having[one].append(len(self.texts))
        self.texts.append(words)
        self.sizes.append(len(words.words))

    def holds(self, words: Words) -> bool:
        """Whether one of the texts is as like this one as the threshold, or more."""
        places = [np.frombuffer(self.having[one], np.int64) for one in words.counted if one in self.having]
        if not places:
            return False
        shared = np.bincount(np.concatenate(places), minlength=len(self.texts))
        total = np.frombuffer(self.sizes, np.int64) + len(words.words)
        near = np.flatnonzero(2 * shared / total >= self.threshold)
        return any(rouge_l(words, self.texts[place]) >= self.threshold for place in near)
