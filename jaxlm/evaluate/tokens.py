"""Texts that are scored as tokens: what was there before, and what is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from jaxlm.config.errors import UsageError
from jaxlm.tokenizers import Tokenizer

Ids = Int[np.ndarray, "_"]


def opening(tokenizer: Tokenizer, text: str) -> Ids:
    """BOS and the tokens of a text."""
    return np.concatenate([[tokenizer.bos], tokenizer.encode(text)]).astype(np.int32)


def after(tokenizer: Tokenizer, context: str, continuations: Sequence[str]) -> tuple[Ids, list[Ids]]:
    """(BOS and the context's tokens, the tokens of each continuation).

    Text is encoded whole and then cut, as a model reads it: words keep the space that they begin with, and white
    space at the context's end goes with the continuation. Where a token spans the cut, it and what follows it in
    any of the wholes is scored with all continuations: they are compared after the same tokens. Raises UsageError
    for a continuation without a token.
    """
    kept = context.rstrip()
    moved = context[len(kept) :]
    alone, *wholes = tokenizer.encode_batch([kept, *(kept + moved + each for each in continuations)])
    cut = min((_shared(alone, whole) for whole in wholes), default=len(alone))
    for text, whole in zip(continuations, wholes):
        if len(whole) == cut:
            raise UsageError(f"{text!r} after {kept[-40:]!r} has no token of its own")
    return np.concatenate([[tokenizer.bos], alone[:cut]]).astype(np.int32), [whole[cut:] for whole in wholes]


def _shared(one: Ids, other: Ids) -> int:
    """Tokens that two texts begin with."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else size


def windows(tokens: Ids, bos: int, length: int) -> Iterator[tuple[Ids, Ids]]:
    """(what comes before, what is scored): together every token once, at most `length` of them in a model's row.

    The first window begins with BOS, each other one with the token before it, and the last reaches back to be full.
    """
    start = 0
    while start < len(tokens):
        end = min(start + length, len(tokens))
        begin = max(end - length, 0) if start else 0
        before = tokens[begin - 1 : start] if begin else np.concatenate([[bos], tokens[:start]]).astype(np.int32)
        yield before, tokens[start:end]
        start = end
