"""Held-out documents, and training documents that do not contain them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import UInt64

from jaxlm.config.errors import Failure
from jaxlm.corpus.documents import Document
from jaxlm.corpus.ngrams import hashes, words

NGRAM = 13
"""Words that agree in a row are contamination (Brown et al. 2020, arXiv:2005.14165, appendix C)."""


def hold_out(documents: Sequence[Document], size: int) -> tuple[list[Document], list[Document]]:
    """(training documents, held-out documents), each in the given order.

    Whole documents are taken by the sha256 of their name until at least `size` bytes are held out: a choice
    that hardly moves when other documents come or go. Those above an eighth of `size` are taken only when no
    others are left, so that a few long documents cannot be all there is to measure on.

    Raises Failure when there are fewer than two documents, or when less than half of the bytes would be left.
    """
    sizes = [len(document.text.encode()) for document in documents]
    total = sum(sizes)
    if len(documents) < 2 or 2 * size > total:
        raise Failure(
            f"cannot hold out {size:,} bytes of {len(documents):,} documents with {total:,} bytes: "
            "give at least two documents and twice the bytes, or lower data.held_out"
        )
    order = sorted(range(len(documents)), key=lambda i: (8 * sizes[i] > size, _rank(documents[i].name), i))
    taken = np.cumsum([0] + [sizes[i] for i in order])
    chosen = set(order[: int(np.searchsorted(taken, size, side="left"))])
    if len(chosen) == len(documents):
        raise Failure(f"holding out {size:,} bytes of whole documents leaves none to train on: lower data.held_out")
    train = [document for i, document in enumerate(documents) if i not in chosen]
    return train, [document for i, document in enumerate(documents) if i in chosen]


def _rank(name: str) -> bytes:
    return sha256(name.encode()).digest()


def decontaminate(
    train: Sequence[Document], held_out: Sequence[Document], *, common: int | None = None
) -> tuple[list[Document], int]:
    """Training documents that share no run of 13 words with a held-out one, and how many do.

    Strict: one shared run drops the whole training document, even if it is only a license header. Words are
    compared case folded, without punctuation. Not caught: shorter overlaps, paraphrases, and copies in which
    at least every 13th word was changed. A run that more than `common` training documents hold is a phrase and
    contaminates nothing (Brown et al. ignore those of more than 10); None has no such runs.
    """
    numbers = words([document.text for document in (*train, *held_out)])
    found = [hashes(ids, NGRAM) for ids in numbers]
    known = np.unique(np.concatenate([*found[len(train) :], np.empty(0, np.uint64)]))
    if common is not None:
        runs = [np.unique(one) for one in found[: len(train)]]
        phrases, counts = np.unique(np.concatenate([*runs, np.empty(0, np.uint64)]), return_counts=True)
        known = np.setdiff1d(known, phrases[counts > common], assume_unique=True)
    kept = [document for document, runs in zip(train, found) if not _any_in(runs, known)]
    return kept, len(train) - len(kept)


def _any_in(values: UInt64[np.ndarray, " n"], known: UInt64[np.ndarray, " known"]) -> bool:
    """Whether any value is among the sorted known ones."""
    if not len(known):
        return False
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return bool((known[places] == values).any())
