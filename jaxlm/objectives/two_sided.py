"""Rows for encoder-decoders: hidden spans, prefixes, and text with gaps."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxlm import config
from jaxlm.config.special import Special
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.pieces import Pieces, Row, Written, lowest, shifted, within, write
from jaxlm.objectives.sentences import permuted
from jaxlm.objectives.spans import numbers, spans


@dataclass(frozen=True)
class Denoising:
    """Every document's words, some of them hidden: the encoder reads the others, the decoder writes these.

    With a mode's token before, and a sentinel for each span (of an end none), the end token behind both texts; but
    an end that the row cuts off has none. A document of one word is left out, and so is what does not fit the
    decoder's rows.
    """

    denoisers: tuple[config.Denoiser, ...]
    sentinels: tuple[int, ...]
    modes: tuple[int, ...]
    """The token of each denoiser's mode; -1 for none."""
    special: Special
    target_length: int = 0

    def __call__(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch as the two sides read it."""
        pieces = Pieces.of(batch, self.special.ids)
        which = self._which(pieces, key)
        end = self._of(which, [one.span == 0 for one in self.denoisers]) > 0
        rate, span = (self._of(which, [getattr(one, name) for one in self.denoisers]) for name in ("rate", "span"))
        hidden, how_many = numbers(pieces, rate, span, len(self.sentinels))
        most = jnp.clip(2 * rate * pieces.count, 1, jnp.maximum(pieces.count - 1, 0)).astype(jnp.int32)
        drawn = 1 + (pieces.draw_once(key, "end") * most).astype(jnp.int32)
        hidden = jnp.where(end, jnp.minimum(drawn, most), hidden)
        found = spans(pieces, hidden, jnp.where(end, jnp.minimum(hidden, 1), how_many), key)
        opens = found.first & ~end
        sentinel = jnp.asarray(self.sentinels or (0,))[found.number]
        kept, written = pieces.word & ~found.hidden, hidden > 0
        mode = self._of(which, self.modes).astype(jnp.int32)
        source = _written(
            pieces,
            (mode, pieces.first & (mode >= 0) & written),
            (jnp.where(opens, sentinel, pieces.ids), (kept | opens) & written),
            (self.special.eos, pieces.last & written),
            length=batch.inputs.ids.shape[1],
            pad=self.special.pad,
        )
        read = written & source.fits
        target = _written(
            pieces,
            (sentinel, opens & read),
            (pieces.ids, found.hidden & read),
            (self.special.eos, pieces.last & read & ~(end & pieces.cut(self.special.eos))),
            length=self.target_length or batch.inputs.ids.shape[1],
            pad=self.special.pad,
        )
        return sides(batch, pieces, source, target, self.special)

    def _which(self, pieces: Pieces, key: Key[Array, ""]) -> Row:
        """The denoiser of each piece."""
        shares = jnp.asarray([one.share for one in self.denoisers])
        upto = jnp.cumsum(shares) / jnp.sum(shares)
        drawn = jnp.searchsorted(upto, pieces.draw_once(key, "denoiser"), side="right")
        return jnp.minimum(drawn, len(self.denoisers) - 1)

    def _of(self, which: Row, values: list | tuple) -> Float[Array, "row pos"]:
        return jnp.asarray(values, jnp.float32)[which]


@dataclass(frozen=True)
class Infilling:
    """The decoder writes documents whole; the encoder sees spans of Poisson lengths as one mask token each (Lewis
    et al. 2019, arXiv:1910.13461, section 2.2). Where spans stand is drawn alike among all ways, neighbors too.
    Before that sentences may change places: those that `extra["ends"]` tells, as `sentences.permuted` has them. The
    end token stands behind what the encoder reads, and behind what the decoder writes where a document ends.
    """

    kind: config.Infilling
    mask: int
    special: Special

    def __call__(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch as the two sides read it."""
        pieces = Pieces.of(batch, self.special.ids)
        index, count, segments = pieces.index, pieces.count, pieces.segments
        wanted = jnp.round(count * self.kind.rate).astype(jnp.int32)
        lengths = jnp.where(pieces.word, poisson(pieces.draw(key, "length"), self.kind.span), 0)
        _, before = within(lengths, segments)
        used = pieces.word & (before < wanted)
        lengths = jnp.where(used, jnp.minimum(lengths, wanted - before), 0)
        total, before = within(lengths, segments)
        how_many, _ = within(used.astype(jnp.int32), segments)
        # Of as many slots as there are spans and words that stay, each a word's place at most, which are spans?
        slots = jnp.minimum(count - total + how_many, count)
        how_many = jnp.minimum(how_many, slots - (count - total))
        is_span = lowest(pieces.draw(key, "place"), pieces.word & (index < slots), how_many, segments)
        span = within(is_span.astype(jnp.int32), segments)[1]
        length = pieces.look_up(pieces.by_number(index, lengths, pieces.word), span)
        # The word that a slot of text shows: those of the slots before it, and of the spans.
        taken = jnp.where(is_span, length, 1) * (pieces.word & (index < slots))
        _, shown = within(taken.astype(jnp.int32), segments)
        order = permuted(pieces, batch.extra["ends"], self.kind.permuted, key) if self.kind.permuted else index
        text = pieces.look_up(pieces.by_number(order, pieces.ids, pieces.word), shown)
        here = pieces.word & (index < slots)
        source = _written(
            pieces,
            (jnp.where(is_span, self.mask, text), here),
            (self.special.eos, pieces.last),
            length=batch.inputs.ids.shape[1],
            pad=self.special.pad,
        )
        target = _written(
            pieces,
            (pieces.ids, pieces.word & source.fits),
            (self.special.eos, pieces.last & source.fits & ~pieces.cut(self.special.eos)),
            length=batch.inputs.ids.shape[1],
            pad=self.special.pad,
        )
        return sides(batch, pieces, source, target, self.special)


def poisson(draws: Float[Array, "row pos"], mean: float) -> Row:
    """Poisson variables by numbers in [0, 1): how many steps of the cumulative distribution lie below each."""
    most = int(mean + 12 * mean**0.5 + 12)
    steps = jnp.arange(most, dtype=jnp.float32)
    log_p = steps * jnp.log(mean) - mean - jnp.cumsum(jnp.log(jnp.maximum(steps, 1.0)))
    return jnp.searchsorted(jnp.cumsum(jnp.exp(log_p)), draws, side="right").astype(jnp.int32)


def _written(pieces: Pieces, *columns: tuple, length: int, pad: int) -> Written:
    """Rows of what each position adds: (tokens, where), one column after the other."""
    tokens = jnp.stack([jnp.broadcast_to(ids, pieces.ids.shape) for ids, _ in columns], axis=2)
    return write(pieces, tokens, jnp.stack([there for _, there in columns], axis=2), length, pad)


def sides(batch: Batch, pieces: Pieces, source: Written, target: Written, special: Special) -> Batch:
    """The batch of an encoder-decoder; `extra["left_out"]` marks the pieces that are not there, of `pieces`."""
    left = pieces.first & ~(source.fits & target.fits)
    return batch.replace(
        inputs=shifted(target.tokens, special.bos),
        source=source.tokens,
        targets=target.tokens.ids,
        weights=(target.tokens.segments > 0).astype(batch.weights.dtype),
        documents=target.documents,
        extra={"pieces": pieces.first.astype(jnp.float32), "left_out": left.astype(jnp.float32)},
    )
