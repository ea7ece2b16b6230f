"""Vectors of texts, each nearer to its positive's than to all others of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxlm import config
from jaxlm.config.special import Special
from jaxlm.layers.contracts import Batch, Call, Model, RowKeys, Tokens
from jaxlm.layers.logprob import log_probabilities
from jaxlm.layers.random import at, row_keys
from jaxlm.models.pooling import pooled
from jaxlm.objectives.classification import ends_before
from jaxlm.objectives.objective import Sums
from jaxlm.objectives.pieces import Pieces, edges, within, write

LEAST = 1e-6
"""For sums of nothing to be divided by."""
ROOM = 16
"""Rows grow by a multiple of so many tokens: whatever their length, devices share them as before."""


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE: -log softmax(cosines / temperature)[positive] in nats, a mean over texts, from first to second.

    Negatives are the second texts of all other pairs of the batch (or the others' second passes), on whatever
    device: a batch is not to be split. Of a row the first `most` texts count; "left_out" is the others' share.
    """

    kind: config.Contrastive
    special: Special

    couples = "batch"

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term: "accuracy" is the share of texts that find their positive."""
        return {"contrastive": 1.0, "accuracy": 0.0, "left_out": 0.0}

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """Texts as segments 2 i - 1 and 2 i of their rows for the i-th pair, each between its own BOS and end.

        `extra["counts"]` is 1 at the first token of each first text that counts, `extra["left_out"]` at that of
        each that does not for want of room. Nothing is random.
        """
        first, _ = edges(batch.inputs.segments)
        texts = first & (batch.inputs.segments > 0)
        if self.kind.positive == "second":
            texts &= batch.extra["labels"] == self.kind.label
            left = texts & (batch.inputs.segments > self.kind.most)
            batch = self._apart(batch)
            counts = self._whole(batch)
        else:
            left = texts & (batch.inputs.segments > self.kind.most)
            counts = texts & ~left
        extra = {"counts": counts.astype(jnp.float32), "left_out": left.astype(jnp.float32)}
        return batch.replace(extra=extra)

    def _apart(self, batch: Batch) -> Batch:
        """The pairs that count, their two texts as documents of their own."""
        inputs = batch.inputs
        second = (ends_before(inputs, self.special.eos) > 0).astype(jnp.int32)
        labels, _ = within(jnp.maximum(batch.extra["labels"] + 1, 0), inputs.segments)
        wanted = (labels == self.kind.label + 1) & (inputs.segments > 0) & (inputs.segments <= self.kind.most)
        segments = jnp.where(inputs.segments > 0, 2 * inputs.segments - 1 + second, 0)
        pieces = Pieces.of(batch.replace(inputs=inputs.replace(segments=segments)), self.special.ids)
        begins = pieces.first & (second > 0)
        tokens = jnp.stack([jnp.full_like(inputs.ids, self.special.bos), inputs.ids], axis=2)
        there = jnp.stack([begins & wanted, wanted], axis=2)
        length = inputs.ids.shape[1] + -(-self.kind.most // ROOM) * ROOM
        written = write(pieces, tokens, there, length, self.special.pad)
        grown = [(0, 0), (0, length - inputs.ids.shape[1])]
        return batch.replace(
            inputs=written.tokens,
            targets=jnp.pad(batch.targets, grown),
            weights=jnp.pad(batch.weights, grown),
            documents=written.documents,
        )

    def _whole(self, batch: Batch) -> Bool[Array, "row pos"]:
        """First tokens of first texts that have a second."""
        segments = batch.inputs.segments
        first, _ = edges(segments)
        _, there = self._places(batch.inputs)
        both = there[:, ::2] & there[:, 1::2]
        pair = jnp.clip((segments - 1) // 2, 0, self.kind.most - 1)
        return first & (segments % 2 == 1) & jnp.take_along_axis(both, pair, axis=1)

    def _places(self, tokens: Tokens) -> tuple[Int[Array, "row text"], Bool[Array, "row text"]]:
        """Of each segment from 1 its first position in the row, and whether the row has it."""
        count = self.kind.most * (2 if self.kind.positive == "second" else 1)
        here = tokens.segments[:, None, :] == jnp.arange(1, count + 1)[None, :, None]
        return jnp.argmax(here, axis=2), jnp.any(here, axis=2)

    def weights(self, batch: Batch) -> Sums:
        """The number of texts that count, and for what was left out that of all; next to none for a batch without
        any, whose loss is 0: all its pairs may be wrong ones.
        """
        count, left = jnp.sum(batch.extra["counts"]), jnp.sum(batch.extra["left_out"])
        found = {"contrastive": count, "accuracy": count, "left_out": count + left}
        return {term: jnp.maximum(number, LEAST) for term, number in found.items()}

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums over the device's own texts, beside the positives of all devices."""
        keys = None if key is None else row_keys(key, batch.rows)
        one, counts, taps = self._vectors(model, batch, at(keys, "contrastive.first"), call)
        if self.kind.positive == "second":
            one, two, counts = one[:, ::2], one[:, 1::2], counts[:, ::2]
        else:
            two, _, _ = self._vectors(model, batch, at(keys, "contrastive.second"), call)
        embed, layout = one.shape[-1], call.layout
        own, counts = one.reshape(-1, embed), counts.reshape(-1)
        others, there = (layout.collect(x, "row", 0) for x in (two.reshape(-1, embed), counts))
        cosines = jnp.where(there > 0, own @ others.T / self.kind.temperature, -jnp.inf)
        number = layout.index("row") * len(own) + jnp.arange(len(own))
        log_p = log_probabilities(jnp.where(counts[:, None] > 0, cosines, 0.0))
        chosen = jnp.take_along_axis(log_p, number[:, None], axis=1)[:, 0]
        # One that is as near as another is not found.
        hit = (jnp.sum(jax.lax.stop_gradient(log_p >= chosen[:, None]), axis=1) == 1).astype(jnp.float32)
        # Devices that share the tokens of a row all have its vectors.
        share = counts / layout.parts("tokens")
        left = jnp.sum(batch.extra["left_out"])
        return {"contrastive": -jnp.sum(share * chosen), "accuracy": jnp.sum(share * hit), "left_out": left}, taps

    def _vectors(
        self, model: Model, batch: Batch, keys: RowKeys | None, call: Call
    ) -> tuple[Float[Array, "row text embed"], Float[Array, "row text"], Sums]:
        """Of each text of a row a float32 vector of length 1, and whether it is a first text that counts; taps."""
        output, layout = model(batch.inputs, call, key=keys), call.layout
        vectors = pooled(output.hidden, batch.inputs, self.kind.of, call)
        whole, segments, counts = (
            layout.collect(x, "tokens", 1) for x in (vectors, batch.inputs.segments, batch.extra["counts"])
        )
        places, there = self._places(batch.inputs.replace(segments=segments))
        found = jnp.take_along_axis(whole, places[..., None], axis=1).astype(jnp.float32)
        length = jnp.sqrt(jnp.sum(jnp.square(found), axis=2, keepdims=True) + 1e-12)
        taps = {f"tap.{name}": value for name, value in output.taps.items()}
        return found / length, jnp.take_along_axis(counts, places, axis=1) * there, taps
