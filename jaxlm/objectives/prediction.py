"""Cross-entropy of tokens: the next ones of a row, or whatever else a corruption leaves to be predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxlm.layers.contracts import Batch, Call, Model, Output
from jaxlm.layers.logprob import likeliest, log_probability
from jaxlm.layers.numbers import matters
from jaxlm.layers.random import row_keys
from jaxlm.models.heads import Scorer
from jaxlm.objectives.auxiliary import NONE, Auxiliary
from jaxlm.objectives.chunks import sums_by_chunk
from jaxlm.objectives.objective import Sums

Corruption = Callable[[Batch, Key[Array, ""]], Batch]
"""What becomes of a batch of rows before a model sees it: a frozen value, so that equal objectives are equal."""


def as_it_is(batch: Batch, key: Key[Array, ""]) -> Batch:
    """Every token is followed by the next: nothing is random."""
    return batch


@dataclass(frozen=True)
class Prediction:
    """-log p(target), and z_loss * logsumexp(logits)^2 (arXiv:2204.02311, section 5), each a mean over tokens.

    A target's weight counts it; a weight of 0 leaves it out. `auxiliary` adds the terms of a mixture of experts;
    `measured` are terms that are reported only: "accuracy", the share of targets that are the likeliest token, and
    "left_out", that of pieces for which a corruption had no room.
    """

    z_loss: float = 0.0
    chunks: int = 8
    auxiliary: Auxiliary = NONE
    corrupt: Corruption = as_it_is
    term: str = "cross_entropy"
    """The name of -log p(target): that of causal text is reported as bits per byte too."""
    measured: tuple[Literal["accuracy", "left_out"], ...] = ()

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """Tokens stand for themselves, unless experts choose among them."""
        return self.auxiliary.couples

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        z = {"z": self.z_loss} if matters(self.z_loss) else {}
        return {self.term: 1.0} | z | self.auxiliary.coefficients | dict.fromkeys(self.measured, 0.0)

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The rows as the model is to see them, and what it is to predict."""
        return self.corrupt(batch, key)

    def weights(self, batch: Batch) -> Sums:
        """The number of targets, for every term but those of the layers."""
        count = jnp.sum(batch.weights)
        found = {term: count for term in self.coefficients} | self.auxiliary.weights(batch)
        return found | ({"left_out": jnp.sum(batch.extra["pieces"])} if "left_out" in self.measured else {})

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums in nats over the micro-batch's targets."""
        return self.totals_of(model, self.output(model, batch, key, call), batch, call)

    def output(self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call) -> Output:
        """What the model makes of the rows, of both sides where there are two."""
        keys = None if key is None else row_keys(key, batch.rows)
        memory = None if batch.source is None else model.encode(batch.source, call, key=keys)
        return model(batch.inputs, call, memory=memory, key=keys)

    def totals_of(self, model: Model, output: Output, batch: Batch, call: Call) -> tuple[Sums, Sums]:
        """The same of hidden states that are there."""
        sums = self.sums(model.scorer(call), output.hidden, batch.targets, batch.weights, call)
        return sums | self.beside(output, batch), {f"tap.{name}": value for name, value in output.taps.items()}

    def beside(self, output: Output, batch: Batch) -> Sums:
        """The terms that no token's scores make: of the corruption, and of the layers."""
        left_out = {"left_out": jnp.sum(batch.extra["left_out"])} if "left_out" in self.measured else {}
        return left_out | {term: output.terms[term] for term in self.auxiliary.coefficients}

    def sums(
        self,
        scores: Scorer,
        hidden: Float[Array, "row pos embed"],
        targets: Int[Array, "row pos"],
        weights: Float[Array, "row pos"],
        call: Call,
    ) -> Sums:
        """The terms of hidden states whose targets these are."""

        def terms(
            hidden: Float[Array, "row chunk embed"],
            targets: Int[Array, "row chunk"],
            weights: Float[Array, "row chunk"],
        ) -> Sums:
            return self.of_scores(scores(hidden), targets, weights, call)

        return sums_by_chunk(terms, hidden, (targets, weights), self.chunks, self.measured)

    def of_scores(
        self,
        logits: Float[Array, "*joined vocab"],
        targets: Int[Array, "*batch"],
        weights: Float[Array, "*batch"],
        call: Call,
    ) -> Sums:
        """The terms of tokens that are scored like this."""
        log_p, normalizer = log_probability(logits, targets, call.layout)
        sums = {self.term: -jnp.sum(weights * log_p)}
        if "accuracy" in self.measured:
            hit = likeliest(logits, targets, call.layout)
            sums["accuracy"] = jnp.sum(weights * hit)
        return sums | ({"z": jnp.sum(weights * jnp.square(normalizer))} if matters(self.z_loss) else {})
