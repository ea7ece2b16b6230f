"""Tokenizers of the library `tokenizers`: whatever a Hugging Face `tokenizer.json` describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Int32

from jaxlm.tokenizers.alphabet import CHARACTERS

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

ANCHOR = "a"
"""A token that no decoder treats in a way of its own."""


@dataclass(frozen=True)
class HuggingFaceTokenizer:
    """A `tokenizer.json` without its own special tokens around a text, and the tokens that jaxlm puts there.

    The text of a special token is text: `encode` never gives the id of one, whatever a document holds.
    """

    model: bytes = field(repr=False)
    """The file, as `tokenizer_json.canonical` writes it: all three tokens below are special ones in it."""
    begin: str
    """Empty where the tokenizer has no such token: `end` takes its place."""
    end: str
    padding: str
    mask_token: str = ""
    template: str = field(default="", repr=False)
    """A chat template (`tokenizers.chat`); it decides no token, so the fingerprint leaves it out."""

    @cached_property
    def library(self) -> Library:
        library = self._opened()
        library.encode_special_tokens = True  # special tokens' text is text
        return library

    @cached_property
    def _library_of_special(self) -> Library:
        return self._opened()

    def _opened(self) -> Library:
        from tokenizers import Tokenizer as Library

        return Library.from_str(self.model.decode())

    @cached_property
    def description(self) -> dict[str, Any]:
        """The file as a tree."""
        return json.loads(self.model)

    @cached_property
    def vocab(self) -> int:
        return 1 + max(self.library.get_vocab().values())

    @property
    def pad(self) -> int:
        return self.library.token_to_id(self.padding)

    @property
    def bos(self) -> int:
        return self.library.token_to_id(self.begin or self.end)

    @property
    def eos(self) -> int:
        return self.library.token_to_id(self.end)

    @property
    def mask(self) -> int | None:
        """The token that stands for hidden ones, where there is one (masked language models)."""
        return self.library.token_to_id(self.mask_token) if self.mask_token else None

    @cached_property
    def unknown(self) -> int | None:
        """The token of what the vocabulary cannot say, where there is one that neither begins nor ends a text."""
        model = self.description["model"]
        token = model.get("unk_token")
        found = self.library.token_to_id(token) if token else model.get("unk_id")
        return None if found in (self.bos, self.eos) else found

    @cached_property
    def fingerprint(self) -> str:
        parts = [sha256(self.model).hexdigest(), self.begin, self.end, self.padding]
        return sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " tokens"]]:
        found = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._clean(one)[0] for one in found]

    def encode_with_offsets(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        return self._clean(self.library.encode(text, add_special_tokens=False))

    def encode_with_special(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        """As `encode_with_offsets`, but the text of a special token is that token: for what a chat template wrote,
        never for a text of others (`conversation.encode` takes care of both).
        """
        found = self._library_of_special.encode(text, add_special_tokens=False)
        return np.array(found.ids, np.int32), np.array(found.offsets, np.int32).reshape(-1, 2)

    @property
    def special(self) -> tuple[str, ...]:
        """The texts of the special tokens, in the order of their ids."""
        return tuple(one["content"] for one in self.description["added_tokens"] if one["special"])

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        shown = [token for token in map(int, ids) if token not in self._special]
        return self.library.decode(shown, skip_special_tokens=False)

    def bytes_of(self, ids: Iterable[SupportsIndex]) -> bytes:
        table = self._bytes
        return b"".join(table.get(int(token), b"") for token in ids)

    @cached_property
    def _special(self) -> frozenset[int]:
        """Tokens that are no text; the unknown one stands for some."""
        ids = {one["id"] for one in self.description["added_tokens"] if one["special"]}
        return frozenset(ids - {self.unknown})

    @cached_property
    def _spelled(self) -> dict[int, list[int]]:
        """For each special token the tokens of its text's characters; the unknown token if these have none."""
        found = {}
        for token in self._special:
            pieces = [self.library.model.tokenize(one) for one in self.library.id_to_token(token)]
            ids = [piece.id for one in pieces for piece in one]
            unknown = [] if self.unknown is None else [self.unknown]
            found[token] = unknown if self._special & set(ids) or set(ids) == {self.unknown} else ids
        return found

    def _clean(self, found: Encoding) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        """(ids, offsets) with special tokens spelled out.

        A vocabulary of words or pieces holds special ones too, and the library finds them there.
        """
        ids, offsets = found.ids, found.offsets
        if not self._special.isdisjoint(ids):
            spelled = [(self._spelled.get(token, [token]), span) for token, span in zip(ids, offsets)]
            ids = [token for tokens, _ in spelled for token in tokens]
            offsets = [span for tokens, span in spelled for _ in tokens]
        return np.array(ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2)

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """The bytes of each token within a text, a space before it included."""
        table = {token: self._piece(text) for text, token in self.library.get_vocab().items()}
        return table | dict.fromkeys(self._special, b"")

    def _piece(self, token: str) -> bytes:
        kinds = self._decoders
        if "ByteLevel" in kinds:
            known = all(one in CHARACTERS for one in token)
            return bytes(CHARACTERS[one] for one in token) if known else token.encode()
        if "ByteFallback" in kinds and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        one, two = self._joined([ANCHOR]), self._joined([ANCHOR, ANCHOR])
        three = self._joined([ANCHOR, token, ANCHOR])
        return three[len(one) : len(three) - (len(two) - len(one))].encode()

    def _joined(self, tokens: list[str]) -> str:
        return " ".join(tokens) if self.library.decoder is None else self.library.decoder.decode(tokens)

    @cached_property
    def _decoders(self) -> set[str]:
        decoder = self.description.get("decoder") or {}
        return {one["type"] for one in decoder.get("decoders", [decoder]) if one}
