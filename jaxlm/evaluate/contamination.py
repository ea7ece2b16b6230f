"""Whether a model was trained on what it is asked: runs of words that items share with training documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt64

from jaxlm.config import data as config
from jaxlm.corpus import conversations, documents, labeled, plain, spoken
from jaxlm.corpus.documents import Document
from jaxlm.corpus.ngrams import WORD, hashes
from jaxlm.corpus.split import NGRAM
from jaxlm.data import builder

LEAST = 8
"""Words of a text that is looked for whole where it has no longer run (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True)
class Overlap:
    """What an item shares with the training documents."""

    runs: int
    """Runs of words in it; 0 is too short to say."""
    shared: int
    """Those of them that stand in a training document too."""
    document: str
    """The name of the first that has one; empty for none."""

    @property
    def share(self) -> float:
        """Of its runs."""
        return self.shared / self.runs if self.runs else 0.0


def overlaps(
    items: Sequence[Sequence[str]], training: Iterable[Document], n: int = NGRAM, least: int = LEAST
) -> list[Overlap]:
    """Of each item, the texts of which are given, the runs of n words that a training document holds.

    Words are compared case folded and without punctuation, within a text. A text of fewer than n words, but at
    least `least`, is one run. Documents are read once, in turn: memory holds the items' runs only. Not seen:
    paraphrases, translations, and texts of languages without spaces, which have few words.
    """
    vocabulary: dict[str, int] = {}
    for texts in items:
        for text in texts:
            for word in _words(text):
                vocabulary.setdefault(word, len(vocabulary))
    found = [[_runs(vocabulary, text, n, least) for text in texts] for texts in items]
    parts = [part for texts in found for part in texts if part is not None]
    known = {size: _Known([runs for one, runs in parts if one == size]) for size in {one for one, _ in parts}}
    for document in training:
        ids = _ids(vocabulary, document.text)
        for size, runs in known.items():
            runs.mark(hashes(ids, size), document.name)
    return [_overlap([part for part in texts if part is not None], known) for texts in found]


class _Known:
    """Runs of one size, in order, and the document that each was first seen in."""

    def __init__(self, runs: Sequence[UInt64[np.ndarray, "_"]]):
        self.hashes = np.unique(np.concatenate(runs))
        self.document = np.full(len(self.hashes), -1)
        self.names: list[str] = []

    def mark(self, runs: UInt64[np.ndarray, "_"], name: str) -> None:
        """Notes what a document has."""
        places = np.minimum(np.searchsorted(self.hashes, runs), len(self.hashes) - 1)
        places = places[self.hashes[places] == runs]
        places = places[self.document[places] < 0]
        if len(places):
            self.document[places] = len(self.names)
            self.names.append(name)

    def seen(self, runs: UInt64[np.ndarray, "_"]) -> tuple[Bool[np.ndarray, "_"], str]:
        """Which runs a document has, and the name of that of the first."""
        owners = self.document[np.searchsorted(self.hashes, runs)]
        there = owners >= 0
        return there, self.names[owners[there][0]] if there.any() else ""


def _overlap(parts: Sequence[tuple[int, UInt64[np.ndarray, "_"]]], known: dict[int, _Known]) -> Overlap:
    seen = [known[size].seen(runs) for size, runs in parts]
    document = next((name for _, name in seen if name), "")
    return Overlap(sum(len(runs) for _, runs in parts), sum(int(there.sum()) for there, _ in seen), document)


def _runs(vocabulary: dict[str, int], text: str, n: int, least: int) -> tuple[int, UInt64[np.ndarray, "_"]] | None:
    """(Words of a run, hashes of the runs) of a text that has any."""
    ids = _ids(vocabulary, text)
    size = min(n, len(ids))
    return (size, hashes(ids, size)) if size >= min(least, n) else None


def _ids(vocabulary: dict[str, int], text: str) -> Int[np.ndarray, "_"]:
    """Words as numbers; one that no item has is -1, as none of theirs is."""
    return np.array([vocabulary.get(word, -1) for word in _words(text)], np.int64)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def texts_of(item: Any) -> list[str]:
    """All texts of an item, wherever they stand in it."""
    if isinstance(item, str):
        return [item]
    inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [text for one in inner for text in texts_of(one)]


def training_documents(data: config.Data) -> Iterator[Document]:
    """All that a run may have been trained on: its documents before they were cleaned and split.

    Raises UsageError and Failure as their readers do.
    """
    match data:
        case config.Corpus(source=source):
            yield from (Document(one.name, one.raw.decode("utf-8", "replace")) for one in documents(source))
        case config.Conversations():
            yield from map(spoken, conversations(data))
        case config.Labeled():
            yield from map(plain, labeled(data)[0])
        case config.Pairs(of=of):
            yield from training_documents(of)
        case config.Tfds(name, split, field):
            found = builder.texts(builder.open_dataset(name), split, field)
            yield from (Document(f"{split}:{number}", text) for number, text in enumerate(found))
