"""UTF-8 bytes as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, SupportsIndex

import numpy as np
from jaxtyping import Int32

PLAIN = 260
"""Bytes and the four tokens before them."""


@dataclass(frozen=True)
class ByteTokenizer:
    """Token 4 + b is the byte b; 0 to 3 are padding, unknown (never produced), beginning and end.

    `special` are names of further tokens, which no text gives, from 260 on.
    """

    special: tuple[str, ...] = ()
    pad: ClassVar[int] = 0
    bos: ClassVar[int] = 2
    eos: ClassVar[int] = 3

    @property
    def vocab(self) -> int:
        return PLAIN + len(self.special)

    @property
    def fingerprint(self) -> str:
        return sha256(" ".join(["bytes: pad unk bos eos 0..255", *self.special]).encode()).hexdigest()

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 4

    def encode_batch(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " tokens"]]:
        return [self.encode(text) for text in texts]

    def encode_with_offsets(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        ids = self.encode(text)
        starts = np.repeat(np.arange(len(text), dtype=np.int32), [len(one.encode()) for one in text])
        return ids, np.stack([starts, starts + 1], axis=1)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return self.bytes_of(ids).decode("utf-8", "replace")

    def bytes_of(self, ids: Iterable[SupportsIndex]) -> bytes:
        return bytes(token - 4 for token in map(int, ids) if 4 <= token < PLAIN)
