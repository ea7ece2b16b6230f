"""Next-token prediction: cross-entropy, and the z-loss that keeps logits from drifting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxlm.layers.contracts import Batch, Call, Model
from jaxlm.layers.logprob import log_probability
from jaxlm.layers.random import row_keys
from jaxlm.objectives.auxiliary import NONE, Auxiliary
from jaxlm.objectives.chunks import sums_by_chunk
from jaxlm.objectives.objective import Sums


@dataclass(frozen=True)
class Autoregressive:
    """-log p(target), and z_loss * logsumexp(logits)^2 (arXiv:2204.02311, section 5), each a mean over tokens.

    A target's weight counts it; a weight of 0 leaves it out. `auxiliary` adds the terms of a mixture of experts.
    """

    z_loss: float = 0.0
    chunks: int = 8
    auxiliary: Auxiliary = NONE

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """Tokens stand for themselves, unless experts choose among them."""
        return self.auxiliary.couples

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        z = {"z": self.z_loss} if self.z_loss else {}
        return {"cross_entropy": 1.0} | z | self.auxiliary.coefficients

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """Nothing is random here."""
        return batch

    def weights(self, batch: Batch) -> Sums:
        """The number of targets, for every term but those of the layers."""
        count = jnp.sum(batch.weights)
        return {term: count for term in self.coefficients} | self.auxiliary.weights(batch)

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums in nats over the micro-batch's targets."""
        keys = None if key is None else row_keys(key, batch.rows)
        memory = None if batch.source is None else model.encode(batch.source, call, key=keys)
        output = model(batch.inputs, call, memory=memory, key=keys)

        scores = model.scorer(call)

        def terms(
            hidden: Float[Array, "row chunk embed"],
            targets: Int[Array, "row chunk"],
            weights: Float[Array, "row chunk"],
        ) -> Sums:
            log_p, normalizer = log_probability(scores(hidden), targets, call.layout)
            sums = {"cross_entropy": -jnp.sum(weights * log_p)}
            return sums | ({"z": jnp.sum(weights * jnp.square(normalizer))} if self.z_loss else {})

        sums = sums_by_chunk(terms, output.hidden, (batch.targets, batch.weights), self.chunks)
        sums |= {term: output.terms[term] for term in self.auxiliary.coefficients}
        return sums, {f"tap.{name}": value for name, value in output.taps.items()}
