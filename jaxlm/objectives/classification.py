"""Labels of texts, and of pairs of texts beside hidden tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxlm.layers.contracts import Batch, Call, Model, Output, Tokens
from jaxlm.layers.logprob import log_probabilities
from jaxlm.layers.random import row_keys
from jaxlm.models.pooling import Pooling, pooled
from jaxlm.objectives.auxiliary import NONE, Auxiliary
from jaxlm.objectives.objective import Sums
from jaxlm.objectives.pieces import within
from jaxlm.objectives.prediction import Prediction


@dataclass(frozen=True)
class Classification:
    """-log p(label) in nats, a mean over texts, by the model's classifier of what `pooling` makes of a text.

    `Batch.extra["labels"]` holds a label at one token of each text, -1 at all others. What follows the end of a
    first text is of token type 1 (Devlin et al. 2018, arXiv:1810.04805, section 3.2), where the model has `types`
    of tokens beyond type 0.
    """

    eos: int
    pooling: Pooling
    types: int = 2
    auxiliary: Auxiliary = NONE
    term: str = "classification"
    accuracy: str = "accuracy"
    """The name of the share of texts whose label is the likeliest."""

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """The tokens of a row."""
        return "batch" if self.auxiliary.couples == "batch" else "row"

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        return {self.term: 1.0, self.accuracy: 0.0} | self.auxiliary.coefficients

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with types of tokens: nothing is random."""
        if self.types < 2:
            return batch
        types = (ends_before(batch.inputs, self.eos) > 0).astype(jnp.int32)
        return batch.replace(inputs=batch.inputs.replace(types=types))

    def weights(self, batch: Batch) -> Sums:
        """The number of texts, for the two terms."""
        count = jnp.sum(batch.extra["labels"] >= 0, dtype=jnp.float32)
        return {self.term: count, self.accuracy: count} | self.auxiliary.weights(batch)

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums over the micro-batch's texts."""
        output = self.output(model, batch, key, call)
        sums = self.sums(model, output, batch, call) | self.beside(output, batch)
        return sums, {f"tap.{name}": value for name, value in output.taps.items()}

    def output(self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call) -> Output:
        """What the model makes of the rows."""
        return model(batch.inputs, call, key=None if key is None else row_keys(key, batch.rows))

    def beside(self, output: Output, batch: Batch) -> Sums:
        """The terms of the layers."""
        return {term: output.terms[term] for term in self.auxiliary.coefficients}

    def sums(self, model: Model, output: Output, batch: Batch, call: Call) -> Sums:
        """The two terms, of hidden states that are there."""
        return self.of_scores(self.scores(model, output, batch, call), batch)

    def scores(self, model: Model, output: Output, batch: Batch, call: Call) -> Float[Array, "row pos labels"]:
        """Those of each text at the token that has its label; anything at all others."""
        return model.classify(pooled(output.hidden, batch.inputs, self.pooling, call), call)

    def of_scores(self, scores: Float[Array, "row pos labels"], batch: Batch) -> Sums:
        """The two terms of texts that are scored like this."""
        labels, log_p = batch.extra["labels"], log_probabilities(scores)
        chosen = jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        hit = (chosen >= jnp.max(log_p, axis=-1)).astype(jnp.float32)
        there = labels >= 0
        return {
            self.term: -jnp.sum(jnp.where(there, chosen, 0.0)),
            self.accuracy: jax.lax.stop_gradient(jnp.sum(jnp.where(there, hit, 0.0))),
        }


@dataclass(frozen=True)
class NextSentence:
    """The sum of two losses of one pass: hidden tokens, and the labels of pairs."""

    masked: Prediction
    pairs: Classification

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """The tokens of a row, unless experts choose among more."""
        return "batch" if self.masked.couples == "batch" else "row"

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        return self.masked.coefficients | self.pairs.coefficients

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with types of tokens, of which some are hidden."""
        return self.masked.prepare(self.pairs.prepare(batch, key), key)

    def weights(self, batch: Batch) -> Sums:
        """The number of hidden tokens, and that of pairs."""
        return self.masked.weights(batch) | self.pairs.weights(batch)

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums over the micro-batch's hidden tokens and pairs."""
        output = self.masked.output(model, batch, key, call)
        sums, more = self.masked.totals_of(model, output, batch, call)
        return sums | self.pairs.sums(model, output, batch, call), more


def ends_before(tokens: Tokens, eos: int) -> Int[Array, "row pos"]:
    """For each token the texts of its document that end before it: `eos` that do not begin the document."""
    ends = (tokens.ids == eos) & (tokens.positions > 0) & (tokens.segments > 0)
    return within(ends.astype(jnp.int32), tokens.segments)[1]
