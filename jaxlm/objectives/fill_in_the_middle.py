"""Documents with their middle at the end (Bavarian et al. 2022, arXiv:2207.14255)."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxlm import config
from jaxlm.config.special import Special
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.pieces import Pieces, within, write

TOKENS = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>")
ROOM = 8
"""A row grows by one for every so many of its tokens: a piece needs three, and pieces beyond stay as they are."""


@dataclass(frozen=True)
class FillInTheMiddle:
    """Prefix, suffix, middle; or, suffix first, "<fim_prefix><fim_suffix> suffix <fim_middle> prefix middle".

    The two cuts are drawn alike from all places between words, ends included (section 3.1, at the level of what a
    row holds). Every token but the first of a document is predicted, as in causal text.
    """

    kind: config.FillInTheMiddle
    tokens: tuple[int, int, int]
    """Prefix, middle, suffix."""
    special: Special

    def __call__(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with some pieces rearranged, in rows longer by an eighth, and by three tokens at least."""
        pieces = Pieces.of(batch, self.special.ids)
        length = batch.inputs.ids.shape[1]
        room = max(length // ROOM, len(TOKENS))
        slots = room // len(TOKENS)
        cut = (pieces.draw_once(key, "cut") < self.kind.rate) & (pieces.count > 0)
        marked = pieces.first & cut
        cut &= jnp.cumsum(marked, axis=1) <= slots
        spm = pieces.draw_once(key, "order") < self.kind.suffix_first
        count = pieces.count
        one, two = ((pieces.draw_once(key, name) * (count + 1)).astype(jnp.int32) for name in ("one", "two"))
        low, high = jnp.minimum(one, two), jnp.maximum(one, two)
        begins = (pieces.first & ~pieces.word).astype(jnp.int32)
        offset, _ = within(begins, pieces.segments)  # 1 where the piece has its document's first token
        marks, places = self._places(pieces, low, high, spm)
        place = jnp.where(cut & pieces.word, offset + places, within_piece(pieces) + jnp.where(cut, 3, 0))
        place = jnp.where(begins > 0, 0, place)
        prefix, middle, suffix = (jnp.full_like(count, token) for token in self.tokens)
        added = pieces.first & cut
        columns = [(pieces.ids, pieces.segments > 0, place)]
        columns += [(token, added, offset + mark) for token, mark in zip((prefix, middle, suffix), marks)]
        tokens, there, where = (jnp.stack(one, axis=2) for one in zip(*columns, strict=True))
        new = write(pieces, tokens, there, length + room, self.special.pad, where)
        after = jnp.pad(new.tokens.ids[:, 1:], ((0, 0), (0, 1)))
        same = jnp.pad(jnp.diff(new.tokens.segments, axis=1) == 0, ((0, 0), (0, 1)))
        follows = same & (new.tokens.segments > 0)
        return batch.replace(
            inputs=new.tokens,
            targets=jnp.where(follows, after, self.special.pad),
            weights=follows.astype(batch.weights.dtype),
            documents=new.documents,
        )

    def _places(self, pieces: Pieces, low: Array, high: Array, spm: Array) -> tuple[tuple, Array]:
        """(Places of the three tokens, of each word) behind the document's first token."""
        i, count = pieces.index, pieces.count
        in_middle, in_suffix = (i >= low) & (i < high), i >= high
        psm = jnp.where(in_suffix, 2 + i - high + low, jnp.where(in_middle, 3 + count - high + i, 1 + i))
        spm_places = jnp.where(in_suffix, 2 + i - high, 3 + count - high + i)
        marks = (
            jnp.zeros_like(i),
            jnp.where(spm, 2 + count - high, 2 + low + count - high),
            jnp.where(spm, 1, 1 + low),
        )
        return marks, jnp.where(spm, spm_places, psm)


def within_piece(pieces: Pieces) -> Array:
    """The place of each token in its piece."""
    return within(jnp.ones_like(pieces.segments), pieces.segments)[1]
