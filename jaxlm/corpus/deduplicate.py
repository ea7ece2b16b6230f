"""Exact duplicates."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from hashlib import sha256

from jaxlm.corpus.documents import Document


def key(text: str) -> str:
    """sha256 of the text in NFC, case folded, each run of white space one space, none at the ends."""
    normal = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return sha256(normal.encode()).hexdigest()


def deduplicate(documents: Iterable[Document]) -> tuple[list[Document], int]:
    """The first document of each key, in order, and the number of the others."""
    first: dict[str, Document] = {}
    total = 0
    for document in documents:
        total += 1
        first.setdefault(key(document.text), document)
    return list(first.values()), total - len(first)
