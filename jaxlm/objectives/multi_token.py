"""Several tokens at once: the next one, and by a head of its own each of some that follow it (Gloeckle et al. 2024,
arXiv:2404.19737, equation 2).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from jaxlm.layers.contracts import Batch, Call
from jaxlm.layers.random import row_keys
from jaxlm.models.decoder import Decoder
from jaxlm.objectives.objective import Sums
from jaxlm.objectives.prediction import Prediction


@dataclass(frozen=True)
class MultiToken:
    """-log p of the next token, `next`'s own terms, and of the k-th next one as the term `ahead_k`, k from 2.

    Each is a mean over the targets that there are of it: tokens of the same piece of a document, with the weights
    that they have as next tokens. Heads are computed one after the other, each with its own scores in chunks; each
    keeps its gradient of the matrix of scores until the backward pass adds them up.
    """

    heads: int
    """Those beside the next token's."""
    coefficient: float = 1.0
    next: Prediction = Prediction()

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """As the next tokens."""
        return self.next.couples

    @property
    def terms(self) -> tuple[str, ...]:
        """Of the further heads, in order."""
        return tuple(f"ahead_{number + 2}" for number in range(self.heads))

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        return self.next.coefficients | dict.fromkeys(self.terms, self.coefficient)

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with each further head's targets and weights: [row, pos, head]. Nothing is random."""
        batch = self.next.prepare(batch, key)
        found = [shifted(batch, number + 1) for number in range(self.heads)]
        targets, weights = (jnp.stack(one, axis=2) for one in zip(*found, strict=True))
        return batch.replace(extra={**batch.extra, "ahead": targets, "ahead_weights": weights})

    def weights(self, batch: Batch) -> Sums:
        """The number of targets of each head, and what the layers' terms are divided by."""
        counts = jnp.sum(batch.extra["ahead_weights"], axis=(0, 1))
        return self.next.weights(batch) | {term: counts[number] for number, term in enumerate(self.terms)}

    def totals(
        self, model: Decoder, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums in nats over the micro-batch's targets; what a mixture adds is of the heads' layers too."""
        keys = None if key is None else row_keys(key, batch.rows)
        output = model(batch.inputs, call, key=keys)
        scores, extra = model.scorer(call), batch.extra
        found = self.next.sums(scores, output.hidden, batch.targets, batch.weights, call)
        layers = [output.terms]
        for number, term in enumerate(self.terms):
            one = model.further(output.trunk, number, batch.inputs, call, key=keys)
            targets, weights = extra["ahead"][..., number], extra["ahead_weights"][..., number]
            head = dataclasses.replace(self.next, term=term)
            found |= head.sums(scores, one.hidden, targets, weights, call)
            layers.append(one.terms)
        for term in self.next.auxiliary.coefficients:
            found[term] = sum(one[term] for one in layers if term in one)
        return found, {f"tap.{name}": value for name, value in output.taps.items()}


def shifted(batch: Batch, further: int) -> tuple[Array, Array]:
    """(Targets, weights) that lie `further` places behind each position, of weight 0 outside its piece."""
    segments = batch.inputs.segments

    def moved(x: Array) -> Array:
        return jnp.pad(x[:, further:], ((0, 0), (0, further)))

    same: Bool[Array, "row pos"] = (moved(segments) == segments) & (segments > 0)
    return jnp.where(same, moved(batch.targets), 0), jnp.where(same, moved(batch.weights), 0)
