"""Spans of hidden words (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4, and its released code)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from jaxlm.objectives.pieces import Flags, Pieces, Row, lowest, within


@struct.dataclass
class Spans:
    """Which words are hidden; the spans of a piece count from 0."""

    hidden: Flags
    number: Row
    """The span of each hidden word."""
    first: Flags
    """A span's first word."""


def numbers(
    pieces: Pieces, rate: Float[Array, "row pos"], span: Float[Array, "row pos"], most: int
) -> tuple[Row, Row]:
    """(Hidden words, spans) of each piece: round(rate * words), and round(hidden / span), each at least 1.

    A piece of one word has none; there are at most `most` spans, and words between any two.
    """
    count = pieces.count
    hidden = jnp.clip(jnp.round(count * rate).astype(jnp.int32), 1, jnp.maximum(count - 1, 0))
    spans = jnp.round(hidden / jnp.maximum(span, 1.0)).astype(jnp.int32)
    room = jnp.minimum(jnp.minimum(hidden, count - hidden), most)
    return hidden, jnp.clip(spans, jnp.minimum(1, hidden), room)


def spans(pieces: Pieces, hidden: Row, how_many: Row, key: Key[Array, ""]) -> Spans:
    """Spans of `hidden` words in all, all ways alike: the first stands behind a word, the last ends the piece.

    Hidden words are cut into spans, and the others into as many parts, each at random places; parts and spans
    alternate.
    """
    index, segments = pieces.index, pieces.segments

    def cut(words: Row, name: str) -> Flags:
        """Where parts of the first `words` words begin but for the first, counted among these."""
        inside = pieces.word & (index >= 1) & (index < words)
        return lowest(pieces.draw(key, name), inside, how_many - 1, segments)

    kept = pieces.count - hidden
    cuts, gaps = cut(hidden, "hidden"), cut(kept, "kept")
    number = within(cuts.astype(jnp.int32), segments)[1] + cuts
    # Kept words up to the end of each part: that of the last is all of them.
    end = pieces.first & (how_many > 0)
    part = jnp.where(gaps, within(gaps.astype(jnp.int32), segments)[1], how_many - 1)
    until = pieces.by_number(part, jnp.where(gaps, index, kept), gaps | end)
    place = index + pieces.look_up(until, number)
    is_hidden = pieces.word & (index < hidden)
    there = pieces.by_number(place, jnp.ones_like(place), is_hidden)
    numbered = pieces.by_number(place, number, is_hidden)
    begins = pieces.by_number(place, jnp.ones_like(place), is_hidden & (cuts | (index == 0)))
    at = [pieces.look_up(table, index) for table in (there, numbered, begins)]
    return Spans(pieces.word & (at[0] > 0), at[1], pieces.word & (at[2] > 0))
