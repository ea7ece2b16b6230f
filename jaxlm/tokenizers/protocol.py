"""What every tokenizer is, and how its bytes become text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Int32


@runtime_checkable
class Tokenizer(Protocol):
    """A value: equal tokenizers have equal fingerprints and give equal tokens.

    `encode` adds no special tokens and gives none for their text ("</s>"); `pad`, `bos` and `eos` stand for no
    text.
    """

    @property
    def vocab(self) -> int:
        """Tokens are 0 .. vocab - 1."""

    @property
    def pad(self) -> int: ...

    @property
    def bos(self) -> int: ...

    @property
    def eos(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides its tokens."""

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " tokens"]]:
        """The same as `encode` of each text, in parallel where the library can."""

    def encode_with_offsets(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        """(`encode`'s tokens, [start, end) of each in the text), in characters of the Python string: those that the
        token's bytes are of, wholly or in part.
        """

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text of whole tokens; bytes that are not UTF-8 become U+FFFD."""

    def bytes_of(self, ids: Iterable[SupportsIndex]) -> bytes:
        """The exact bytes: those of a concatenation are the concatenation of the bytes."""


def stream(tokenizer: Tokenizer, ids: Iterable[SupportsIndex]) -> Iterator[str]:
    """The text that each further token completes.

    An unfinished UTF-8 sequence waits for its other bytes; at the end what is left becomes U+FFFD.
    One string a token, then one for the rest: joined, they are the decoded bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        yield decoder.decode(tokenizer.bytes_of([token]))
    yield decoder.decode(b"", final=True)
