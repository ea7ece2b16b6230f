"""Prefixes of documents that a decoder sees from both sides (Raffel et al. 2019, arXiv:1910.10683, section 3.2.3).

For an encoder-decoder the same objective is an end that is hidden: see `objectives/two_sided.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxlm.config.special import Special
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.pieces import Pieces, within


@dataclass(frozen=True)
class Prefix:
    """Rows as they are, with the place where the prefix of each piece ends, and what follows it to be predicted.

    A prefix is 1 word to all but one, drawn alike for each piece, with what stands before its words: the token that
    begins a document belongs to it. Of a piece of one word nothing is predicted: it has no such prefix.
    """

    special: Special

    def __call__(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with `inputs.prefix`; targets that a prefix shows have weight 0."""
        pieces = Pieces.of(batch, self.special.ids)
        most = jnp.maximum(pieces.count - 1, 0)
        words = jnp.minimum(1 + (pieces.draw_once(key, "end") * most).astype(jnp.int32), most)
        real = (pieces.segments > 0).astype(jnp.int32)
        tokens, _ = within(real * (pieces.index < words), pieces.segments)
        _, place = within(real, pieces.segments)
        # The last token of a prefix predicts the first that follows it.
        predicts = (words > 0) & (place >= tokens - 1)
        begin = batch.inputs.positions - place
        return batch.replace(
            inputs=batch.inputs.replace(prefix=jnp.where(real > 0, begin + tokens, 0)),
            weights=batch.weights * predicts.astype(batch.weights.dtype),
        )
