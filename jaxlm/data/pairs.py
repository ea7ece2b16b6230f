"""Documents as pairs of texts, of which half do not belong together.

Devlin et al. 2018 (arXiv:1810.04805, appendix A.2) and Lan et al. 2019 (arXiv:1909.11942, section 3.1): sentences
in order until they fill a row; where the first text ends is drawn, all ends of sentences alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlm.config.data import Pairs
from jaxlm.config.errors import UsageError
from jaxlm.data.dataset import Tokenized, batches
from jaxlm.data.labels import Ids, between, cut
from jaxlm.tokenizers import Tokenizer

SHARD = 4096
"""Documents of which one that does not belong is taken."""
END = re.compile(r"(?<=[.!?])\s+|\n+")
Sentences = list[Ids]


def sentences(text: str) -> list[str]:
    """Lines, cut behind full stops, question and exclamation marks that white space follows; no empty ones."""
    return [part for part in (one.strip() for one in END.split(text)) if part]


@dataclass(frozen=True)
class Paired:
    """How documents become pairs of at most so many tokens; every draw is keyed by the document's number."""

    kind: Pairs
    longest: int | None

    def __post_init__(self):
        if self.longest is None or self.longest < 5:
            raise UsageError(
                f"train.length={self.longest}: a pair has at least 5 tokens, its three special ones with it"
            )

    def tokenized(
        self, documents: Iterable[str], tokenizer: Tokenizer, report: Callable[[str], None]
    ) -> Iterator[Tokenized]:
        """Pairs with their labels; `report` hears what share is right."""
        total = wrong = first = 0
        for group in batches(documents, SHARD):
            shard = [_encoded(text, tokenizer) for text in group]
            for copy in range(self.kind.copies):
                for number in range(len(shard)):
                    draw = np.random.default_rng([first + number, copy])
                    for label, texts in self._of(number, shard, draw):
                        whole = between(tokenizer, texts)
                        size = len(tokenizer.decode(whole).encode())
                        total, wrong = total + 1, wrong + label
                        yield Tokenized(whole, None, size, label)
            first += len(group)
        if total:
            report(f"data: {total:,} pairs of texts, {wrong / total:.1%} of them wrong")

    def said(self, documents: Iterable[str]) -> Iterator[str]:
        """The documents."""
        return iter(documents)

    def _of(
        self, number: int, shard: list[Sentences], draw: np.random.Generator
    ) -> Iterator[tuple[int, list[Ids]]]:
        """The pairs of a document: (label, two texts)."""
        document, at = shard[number], 0
        room = self.longest - 3
        while at < len(document):
            target = int(draw.integers(2, room + 1)) if draw.random() < self.kind.short else room
            end, size = at, 0
            while end < len(document) and size < target:
                size += len(document[end])
                end += 1
            split = int(draw.integers(at + 1, end)) if end - at > 1 else end
            wrong = draw.random() < 0.5
            one, two = _joined(document[at:split]), _joined(document[split:end])
            if self.kind.wrong == "swapped":
                if split < end:  # a sentence alone has no order
                    yield int(wrong), _shortened([two, one] if wrong else [one, two], room, draw)
                at = end
                continue
            if wrong or split == end:
                two = _other(number, shard, target - len(one), draw)
                if two is not None:
                    yield 1, _shortened([one, two], room, draw)
                at = split  # what was not used is another pair's
                continue
            yield 0, _shortened([one, two], room, draw)
            at = end


def _encoded(text: str, tokenizer: Tokenizer) -> Sentences:
    found = sentences(text)
    return [ids for ids in tokenizer.encode_batch(found) if len(ids)] if found else []


def _joined(parts: Sequence[Ids]) -> Ids:
    return np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32)


def _other(number: int, shard: list[Sentences], size: int, draw: np.random.Generator) -> Ids | None:
    """About so many tokens, at least a sentence, of another document from a place in it; None without any."""
    others = [i for i, one in enumerate(shard) if one and i != number]
    if not others:
        return None
    document = shard[others[int(draw.integers(len(others)))]]
    begin = int(draw.integers(len(document)))
    end, found = begin, 0
    while end < len(document) and (found < size or end == begin):
        found += len(document[end])
        end += 1
    return _joined(document[begin:end])


def _shortened(texts: list[Ids], most: int, draw: np.random.Generator) -> list[Ids]:
    """`most` tokens in all: the longer text loses tokens, from its beginning as often as from its end."""
    result = []
    for text, kept in zip(texts, map(len, cut(texts, most)), strict=True):
        front = int(draw.binomial(len(text) - kept, 0.5))
        result.append(text[front : front + kept])
    return result
