"""Samples that hold what a model will be evaluated on: runs of words that they share with the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt64

from jaxlm.corpus.ngrams import WORD, hashes
from jaxlm.corpus.split import NGRAM

LEAST = 8
"""Words of an item's text that is looked for whole where it has no longer run (Brown et al. 2020, appendix C)."""


class Items:
    """The runs of n words of evaluation items, and whether a text holds one.

    Words are compared case folded and without punctuation. Not seen: paraphrases, translations, texts of fewer than
    `least` words, and languages without spaces, which have few words.
    """

    def __init__(self, items: Iterable[Sequence[str]], n: int = NGRAM, least: int = LEAST):
        self.vocabulary: dict[str, int] = {}
        found: dict[int, list[UInt64[np.ndarray, "_"]]] = {}
        self.short = 0
        """Items of which no text is long enough to be looked for."""
        for texts in items:
            looked = False
            for text in texts:
                words = _words(text)
                size = min(n, len(words))
                if size >= min(least, n):
                    ids = np.array([self.vocabulary.setdefault(one, len(self.vocabulary)) for one in words])
                    found.setdefault(size, []).append(hashes(ids, size))
                    looked = True
            self.short += not looked
        self.runs = {size: np.unique(np.concatenate(each)) for size, each in found.items()}

    def shared(self, text: str) -> bool:
        """Whether a text holds a run of an item."""
        ids = self._ids(text)
        return any(bool(np.isin(hashes(ids, size), runs).any()) for size, runs in self.runs.items())

    def _ids(self, text: str) -> Int[np.ndarray, "_"]:
        """Words as numbers; one that no item has is -1, as none of theirs is."""
        return np.array([self.vocabulary.get(word, -1) for word in _words(text)], np.int64)


def clean(items: Items) -> Callable[..., str | None]:
    """The check that neither a sample's messages nor its answer hold a run of an item."""

    def check(sample) -> str | None:
        if any(items.shared(one["content"]) for one in sample.prompt.messages):
            return "its prompt is in the evaluation items"
        return "its answer is in the evaluation items" if items.shared(sample.text) else None

    return check


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
