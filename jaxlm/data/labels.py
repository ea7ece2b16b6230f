"""Labeled texts as documents of tokens: `bos, text, eos`, or `bos, text, eos, second text, eos`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from jaxlm.corpus.labeled import example
from jaxlm.data.dataset import Tokenized, batches
from jaxlm.tokenizers import Tokenizer

Ids = Int32[np.ndarray, " tokens"] | Sequence[int]


def between(tokenizer: Tokenizer, texts: Sequence[Ids]) -> Int32[np.ndarray, " tokens"]:
    """One document of one text or two."""
    parts = [[tokenizer.bos], *(part for ids in texts for part in (ids, [tokenizer.eos]))]
    return np.concatenate([np.asarray(part, np.int32) for part in parts])


def cut(texts: Sequence[Ids], most: int) -> list[Ids]:
    """Texts of `most` tokens in all: the longest loses its last ones first, of equal ones the later."""
    lengths = [len(text) for text in texts]
    while sum(lengths) > most:
        longest = max(range(len(lengths)), key=lambda i: (lengths[i], i))
        rest = max((n for i, n in enumerate(lengths) if i != longest), default=0)
        lengths[longest] -= min(sum(lengths) - most, max(lengths[longest] - rest, 1))
    return [text[:length] for text, length in zip(texts, lengths, strict=True)]


@dataclass(frozen=True)
class Texts:
    """How labeled documents become tokens."""

    longest: int | None
    """Tokens of a row."""

    def tokenized(
        self, documents: Iterable[str], tokenizer: Tokenizer, report: Callable[[str], None]
    ) -> Iterator[Tokenized]:
        """Each with its label; `report` hears how many had to be cut."""
        total = shorter = 0
        for group in batches(documents, 256):
            found = [example(one) for one in group]
            encoded = iter(tokenizer.encode_batch([text for one in found for text in one.texts]))
            for label, texts in found:
                ids = [next(encoded) for _ in texts]
                room = sum(map(len, ids)) if self.longest is None else self.longest - 1 - len(ids)
                kept = cut(ids, max(room, 0))
                total, shorter = total + 1, shorter + (sum(map(len, kept)) < sum(map(len, ids)))
                size = sum(len(text.encode()) for text in texts)
                yield Tokenized(between(tokenizer, kept), None, size, label)
        if shorter:
            report(f"data: of more tokens than a row's {self.longest}, and cut: {shorter:,} of {total:,} texts")

    def said(self, documents: Iterable[str]) -> Iterator[str]:
        """The texts."""
        return ("\n".join(example(one).texts) for one in documents)
