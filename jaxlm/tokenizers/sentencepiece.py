"""SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226), as read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
from jaxtyping import Int32

from jaxlm.config.errors import Failure, UsageError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "▁"
"""U+2581, which SentencePiece writes for a space; in a text it would come back as one."""


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """A serialized model.

    Lossless with byte fallback, identity normalization and no dummy prefix, as trained here.
    """

    model: bytes

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self.model)

    @property
    def vocab(self) -> int:
        return self.processor.vocab_size()

    @property
    def pad(self) -> int:
        # A model without padding (LLaMA's) pads with its end token, which the weights of a row ignore.
        pad = self.processor.pad_id()
        return pad if pad >= 0 else self.eos

    @property
    def bos(self) -> int:
        bos = self.processor.bos_id()
        return bos if bos >= 0 else self.eos

    @property
    def eos(self) -> int:
        return self.processor.eos_id()

    @cached_property
    def control(self) -> dict[str, int]:
        """Special tokens by name that are neither of the three above nor the unknown one."""
        processor = self.processor
        found = {processor.id_to_piece(token): token for token in range(self.vocab) if processor.is_control(token)}
        return {name: token for name, token in found.items() if token not in (self.pad, self.bos, self.eos)}

    @cached_property
    def fingerprint(self) -> str:
        return sha256(self.model).hexdigest()

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " tokens"]]:
        # Parts between U+2581, which becomes its three bytes where the model has them.
        parts = [part for text in texts for part in text.split(SPACE)]
        encoded = iter(self.processor.encode(parts, num_threads=-1))
        joint = self._space
        result = []
        for text in texts:
            ids = list(next(encoded))
            for _ in range(text.count(SPACE)):
                ids += joint
                ids += next(encoded)
            result.append(np.array(ids, np.int32))
        return result

    def encode_with_offsets(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        spans: list[tuple[int, int]] = []
        start, width = 0, len(SPACE.encode())
        for number, part in enumerate(text.split(SPACE)):
            if number:
                spans += [(start - width, start)] * len(self._space)
            end = None
            found = []
            for piece in reversed(self.processor.encode(part, return_type="proto").pieces):
                # The library gives all bytes of a character to the last token of its bytes.
                end = piece.end if end is None or piece.begin < piece.end else end
                found.append((start + piece.begin, start + end))
            spans += reversed(found)
            start += len(part.encode()) + width
        # The library counts bytes.
        character = np.append(np.repeat(np.arange(len(text)), [len(one.encode()) for one in text]), len(text))
        offsets = [(character[a], character[b - 1] + 1 if b > a else character[a]) for a, b in spans]
        return self.encode(text), np.array(offsets, np.int32).reshape(-1, 2)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        text = self.bytes_of(ids).decode("utf-8", "replace")
        return text[1:] if self._prefixed and text.startswith(" ") else text

    def bytes_of(self, ids: Iterable[SupportsIndex]) -> bytes:
        table = self._bytes
        return b"".join(table[int(token)] for token in ids)

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of each token; none for control tokens, those of U+FFFD for the unknown."""
        processor = self.processor
        table = []
        for token in range(self.vocab):
            piece = processor.id_to_piece(token)
            if processor.is_control(token) or processor.is_unused(token):
                table.append(b"")
            elif processor.is_unknown(token):
                table.append("\ufffd".encode())
            elif processor.is_byte(token):
                table.append(bytes([int(piece[3:-1], 16)]))
            else:
                table.append(piece.replace(SPACE, " ").encode())
        return table

    @cached_property
    def _space(self) -> list[int]:
        """U+2581 itself: its bytes if the model falls back to bytes, else the unknown token."""
        ids = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        unknown = self.processor.unk_id()
        return [unknown] if unknown in ids else ids

    @cached_property
    def _prefixed(self) -> bool:
        """Whether the model puts a space before every text."""
        return self.processor.encode("a", out_type=str)[0].startswith(SPACE)


def load(path: str | Path) -> SentencePieceTokenizer:
    """The tokenizer of a `.model` file. Raises UsageError if it is missing, Failure if it is not a model."""
    try:
        model = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"tokenizer.path: there is no file {str(path)!r}") from error
    except OSError as error:
        raise Failure(f"cannot read the tokenizer {str(path)!r}: {error.strerror}") from error
    tokenizer = SentencePieceTokenizer(model)
    try:
        size = tokenizer.vocab if model else 0
    except RuntimeError:
        size = 0
    if not size:
        raise Failure(f"{str(path)!r} is not a SentencePiece model")
    if tokenizer.eos < 0:
        raise UsageError(f"{str(path)!r} has no end-of-sentence token (eos_id): train it with one")
    return tokenizer
