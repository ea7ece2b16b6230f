"""Sentences in another order (Lewis et al. 2019, arXiv:1910.13461, section 2.2, and its released code)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxlm.objectives.pieces import Flags, Pieces, Row, ranks, within


def opens(pieces: Pieces, ends: Row) -> Flags:
    """The first word of each sentence; `ends` is 1 at tokens whose text ends one.

    Of several such tokens in a row the first is the end, and the others begin the next sentence, as in the released
    code. Words behind the last end are a sentence too; the released code leaves them where they are if the last but
    one of the piece is such a token.
    """
    told = pieces.by_number(pieces.index, ends, pieces.word)

    def ended(number: Row) -> Flags:
        """Whether the word of this number is one of those tokens."""
        return (number >= 0) & (pieces.look_up(told, number) > 0)

    after_end = ended(pieces.index - 1) & ~ended(pieces.index - 2)
    return pieces.word & ((pieces.index == 0) | after_end)


def permuted(pieces: Pieces, ends: Row, share: float, key: Key[Array, ""]) -> Row:
    """The place of each word in its piece after ceil(share * sentences) sentences have changed places.

    Which they are is drawn alike, and so is their order among the places that they leave: some may come back to
    theirs. Draws are keyed by (document, the sentence's number in the piece).
    """
    first, segments = opens(pieces, ends), pieces.segments
    count, before = within(first.astype(jnp.int32), segments)
    number = before + first - 1
    # Counted on the host: in float32 a product that should be whole may lie above.
    how_many = jnp.asarray(np.ceil(share * np.arange(segments.shape[1] + 1)).astype(np.int32))[count]
    # The lowest draws say which, and their order says in which order: neither tells of the other.
    order = ranks(pieces.draw(key, "sentence", number), first, segments)
    moving = first & (order < how_many)
    slots = pieces.by_number(within(moving.astype(jnp.int32), segments)[1], number, moving)
    place = jnp.where(moving, pieces.look_up(slots, order), number)
    # What stands before a sentence: as many words as the sentences of the places before have.
    length = pieces.look_up(_lengths(pieces, number), number)
    taken = pieces.by_number(place, length, first)
    begins = jnp.cumsum(taken, axis=1) - taken
    start = pieces.look_up(begins, place) - pieces.before
    moved_to = pieces.by_number(number, start - pieces.index, first)
    return pieces.index + pieces.look_up(moved_to, number)


def _lengths(pieces: Pieces, number: Row) -> Row:
    """A table of each piece: the words of each sentence."""
    rows, pos = number.shape
    at = jnp.where(pieces.word, pieces.before + number, pos)
    return jnp.zeros_like(number).at[jnp.arange(rows)[:, None], at].add(1, mode="drop")
