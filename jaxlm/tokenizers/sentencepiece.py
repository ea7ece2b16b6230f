"""SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226): trained here, or read from a file."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex

import numpy as np
from jaxtyping import Int32

from jaxlm.config.errors import Failure, UsageError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "▁"
"""U+2581, which SentencePiece writes for a space; in a text it would come back as one."""
CHUNK = 4096
"""Characters of a training sentence."""
LIMIT = {"bpe": 32_000_000, "unigram": 4_000_000}
"""Characters to learn from: some 10 s for BPE, some 30 s for unigram on two cores."""


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


def train(texts: Sequence[str], kind: Literal["bpe", "unigram"], vocab: int) -> SentencePieceTokenizer:
    """A tokenizer of exactly `vocab` tokens, learned from about `LIMIT` characters spread over the texts.

    Pieces may hold line breaks, runs of spaces and mixed scripts, so that the end of a line of code and the
    indentation of the next are a token each; they never cross from one word over a space to another. The
    result depends on the texts and their order only, not on the machine's cores.

    Raises UsageError, naming the nearest possible size, if the texts do not support `vocab` tokens.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, LIMIT[kind]),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            max_sentence_length=8 * CHUNK,
            num_threads=8,  # Pinned: a unigram model's bytes depend on it.
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, kind, vocab) from error
    return SentencePieceTokenizer(model.getvalue())


def _sentences(texts: Sequence[str], limit: int) -> Iterator[str]:
    """Every n-th chunk of the texts, with n such that about `limit` characters are left."""
    every = -(-sum(map(len, texts)) // limit)
    return itertools.islice((chunk for text in texts for chunk in _chunks(text)), 0, None, max(every, 1))


def _chunks(text: str) -> Iterator[str]:
    """Pieces that begin, not end, with a line break: the trainer strips breaks at the end."""
    start = 0
    while start < len(text):
        end = start + CHUNK
        cut = text.rfind("\n", start + 1, end) if end < len(text) else len(text)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut


def _explain(error: RuntimeError, kind: str, vocab: int) -> UsageError | Failure:
    message = str(error)
    if found := re.search(r"too high .*<= (\d+)", message):
        return UsageError(
            f"tokenizer.vocab={vocab}: the training text supports at most {found[1]} {kind} tokens; "
            f"set tokenizer.vocab to {found[1]} or less (and model.vocab with it), or give more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UsageError(f"tokenizer.vocab={vocab}: the training text needs at least {found[1]} {kind} tokens")
    if "!sentences_.empty()" in message:
        return Failure("cannot train a tokenizer: the training documents hold no text")
    return Failure(f"SentencePiece could not train a {kind} model of {vocab} tokens: {message}")


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
