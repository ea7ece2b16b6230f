"""Rows as pieces of documents, and rows that are written anew from them: static shapes throughout.

A piece is what one row holds of one document. Its words are its tokens but for the special ones that begin and end
a document. Whatever is drawn for a word is keyed by its document and its place in the piece, not by the row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from jaxlm.layers import random
from jaxlm.layers.contracts import Batch, Tokens

Row = Int[Array, "row pos"]
Flags = Bool[Array, "row pos"]


@struct.dataclass
class Pieces:
    """The pieces of rows; each fact of a piece stands at every one of its positions."""

    ids: Row
    word: Flags
    """Whether a token is one of its piece's words."""
    index: Row
    """Words of the piece before the token."""
    count: Row
    """Words of the piece."""
    before: Row
    """Words of the pieces before this one."""
    first: Flags
    """The piece's first token, of whatever kind."""
    last: Flags
    segments: Row
    documents: Row

    @classmethod
    def of(cls, batch: Batch, special: tuple[int, ...]) -> Pieces:
        """Of rows in their own order; the words are the tokens that are not `special`."""
        ids, segments = batch.inputs.ids, batch.inputs.segments
        word = (segments > 0) & ~jnp.isin(ids, jnp.asarray(special))
        starts, ends = edges(segments)
        count, index = within(word.astype(jnp.int32), segments)
        before = jnp.cumsum(word, axis=1, dtype=jnp.int32) - word - index
        real = segments > 0
        return cls(ids, word, index, count, before, starts & real, ends & real, segments, batch.documents)

    def draw(self, key: Key[Array, ""], name: str, number: Row | None = None) -> Float[Array, "row pos"]:
        """A number in [0, 1) for each word, or for each part of a piece that has a number."""
        return random.of_tokens(_site(key, name), self.documents, self.index if number is None else number)

    def draw_once(self, key: Key[Array, ""], name: str) -> Float[Array, "row pos"]:
        """A number in [0, 1) for each piece."""
        return random.of_tokens(_site(key, name), self.documents, jnp.zeros_like(self.index))

    def cut(self, eos: int) -> Flags:
        """At a piece's last token, whether its document goes on: the token is not its end."""
        return self.last & (self.ids != eos)

    def by_number(self, number: Row, values: Row, where: Flags) -> Row:
        """A table of each piece, to be read by `look_up`: value `values` at `number`, for positions `where`.

        Numbers are below the count of the piece's words.
        """
        rows, pos = number.shape
        place = jnp.where(where, self.before + number, pos)
        return jnp.zeros_like(number).at[jnp.arange(rows)[:, None], place].set(values, mode="drop")

    def look_up(self, table: Row, number: Row) -> Row:
        """The value at `number` of the piece's table; anything for numbers that it has not."""
        return jnp.take_along_axis(table, jnp.clip(self.before + number, 0, table.shape[1] - 1), axis=1)


def _site(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    return jax.random.fold_in(key, random.site(f"pieces.{name}"))


def edges(groups: Row) -> tuple[Flags, Flags]:
    """(First positions, last positions) of runs of equal numbers."""
    edge = jnp.pad(jnp.diff(groups, axis=1) != 0, ((0, 0), (1, 1)), constant_values=True)
    return edge[:, :-1], edge[:, 1:]


def within(x: Row, groups: Row) -> tuple[Row, Row]:
    """(The sum of x >= 0 over each position's run of equal groups, that of the positions before it in the run)."""
    starts, ends = edges(groups)
    upto = jnp.cumsum(x, axis=1)
    before = jax.lax.cummax(jnp.where(starts, upto - x, 0), axis=1)
    after = jax.lax.cummin(jnp.where(ends, upto, jnp.iinfo(jnp.int32).max), axis=1, reverse=True)
    return after - before, upto - x - before


def lowest(draws: Float[Array, "row pos"], candidates: Flags, how_many: Row, groups: Row) -> Flags:
    """The `how_many` candidates of each group with the smallest draws."""
    return candidates & (ranks(draws, candidates, groups) < how_many)


def ranks(draws: Float[Array, "row pos"], candidates: Flags, groups: Row) -> Row:
    """How many candidates of each candidate's group have smaller draws; anything for others."""
    order = jnp.lexsort((draws, ~candidates, groups), axis=1)
    place = jnp.argsort(order, axis=1).astype(jnp.int32)
    rows = jnp.arange(groups.shape[0])[:, None]
    size = jnp.zeros((groups.shape[0], groups.shape[1] + 1), jnp.int32).at[rows, groups].add(1)
    begins = (jnp.cumsum(size, axis=1) - size)[rows, groups]
    return place - begins


@struct.dataclass
class Written:
    """New rows, and which positions of the old ones belong to pieces that are there whole."""

    tokens: Tokens
    documents: Int[Array, "row length"]
    fits: Flags


def write(
    pieces: Pieces,
    tokens: Int[Array, "row pos most"],
    there: Bool[Array, "row pos most"],
    length: int,
    pad: int,
    places: Int[Array, "row pos most"] | None = None,
) -> Written:
    """Rows of `length` in which each position of a piece puts up to `most` tokens, where they are `there`.

    They follow one another as they stand, or stand at `places` of their piece. New pieces keep their segment and
    count positions from 0. One that would reach beyond `length` is left out, with all that follow it.
    """
    rows = tokens.shape[0]
    counts = jnp.sum(there, axis=2, dtype=jnp.int32)
    total, before = within(counts, pieces.segments)
    start = jnp.cumsum(counts, axis=1) - counts - before
    fits = (pieces.segments > 0) & (total > 0) & (start + total <= length)
    if places is None:
        places = before[..., None] + jnp.cumsum(there, axis=2, dtype=jnp.int32) - 1
    to = jnp.where(there & fits[..., None], start[..., None] + places, length).reshape(rows, -1)

    def put(values: Array, empty: int) -> Int[Array, "row length"]:
        out = jnp.full((rows, length), empty, jnp.int32)
        flat = jnp.broadcast_to(values, there.shape).reshape(rows, -1).astype(jnp.int32)
        return out.at[jnp.arange(rows)[:, None], to].set(flat, mode="drop")

    new = Tokens(put(tokens, pad), put(pieces.segments[..., None], 0), put(places, 0))
    return Written(new, put(pieces.documents[..., None], 0), fits)


def shifted(targets: Tokens, begin: int) -> Tokens:
    """What a decoder reads as it writes `targets`: each piece's tokens one later, behind `begin`."""
    before = jnp.pad(targets.ids[:, :-1], ((0, 0), (1, 0)))
    ids = jnp.where(targets.positions == 0, begin, before)
    return targets.replace(ids=jnp.where(targets.segments > 0, ids, targets.ids))
