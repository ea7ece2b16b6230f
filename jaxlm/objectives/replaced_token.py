"""Replaced token detection (ELECTRA, Clark et al. 2020, arXiv:2003.10555, section 3.1).

As in the released code every token of a text is scored, the special ones that begin and end it among them, and a
drawn token that is the text's own counts as original.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxlm.layers import random
from jaxlm.layers.contracts import Batch, Call, Model, RowKeys
from jaxlm.layers.draw import draw
from jaxlm.layers.logprob import likeliest, log_probability
from jaxlm.objectives.auxiliary import NONE, Auxiliary
from jaxlm.objectives.chunks import sums_and_tokens_by_chunk
from jaxlm.objectives.masked_lm import Masking
from jaxlm.objectives.objective import Sums

OF_HIDDEN = ("masked_lm", "generator_accuracy")
OF_ALL = ("replaced", "discriminator_accuracy", "replaced_share")


@dataclass(frozen=True)
class ReplacedTokens:
    """masked_lm + weight * replaced: -log p(token) of hidden tokens by the generator, and -log p of whether a token
    was replaced, for all tokens, by the model.

    What is drawn for a hidden token is keyed by its document and its place there. Measured are the share of hidden
    tokens that are the generator's likeliest, the share of all that the model tells rightly, and the share of those
    that were replaced: as many would be told wrongly by calling each original.
    """

    masking: Masking
    weight: float = 50.0
    auxiliary: Auxiliary = NONE
    """Of the model's experts; a generator has none."""

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """Tokens stand for themselves, unless experts choose among them."""
        return self.auxiliary.couples

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        losses = {"masked_lm": 1.0, "replaced": self.weight}
        return dict.fromkeys((*OF_HIDDEN, *OF_ALL), 0.0) | losses | self.auxiliary.coefficients

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """Rows with hidden tokens, and the keys of what is drawn for them."""
        site = jax.random.fold_in(key, random.site("replaced_token.draw"))
        keys = random.token_keys(site, batch.documents, batch.inputs.positions)
        hidden = self.masking(batch, key)
        return hidden.replace(extra=hidden.extra | {"draws": jax.random.key_data(keys)})

    def weights(self, batch: Batch) -> Sums:
        """The number of hidden tokens, and of all."""
        hidden, every = jnp.sum(batch.weights), jnp.sum(batch.inputs.segments > 0, dtype=jnp.float32)
        return dict.fromkeys(OF_HIDDEN, hidden) | dict.fromkeys(OF_ALL, every) | self.auxiliary.weights(batch)

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums in nats over the micro-batch's hidden tokens, and over all its tokens."""
        keys = None if key is None else random.row_keys(key, batch.rows)
        sums, drawn = self._generated(model, batch, random.at(keys, "generator"), call)
        shown = jnp.where(batch.weights > 0, drawn, batch.targets)
        output = model(batch.inputs.replace(ids=shown), call, key=keys)
        scores = model.classify(output.hidden, call)[..., 0].astype(jnp.float32)
        replaced = shown != batch.targets
        sums |= told(scores, replaced, batch.inputs.segments > 0)
        sums |= {term: output.terms[term] for term in self.auxiliary.coefficients}
        return sums, {f"tap.{name}": value for name, value in output.taps.items()}

    def _generated(
        self, model: Model, batch: Batch, keys: RowKeys | None, call: Call
    ) -> tuple[Sums, Int[Array, "row pos"]]:
        """The generator's sums, and the tokens it draws."""
        generator, call = model.generating, dataclasses.replace(call, taps=())
        hidden, scores = generator(batch.inputs, call, key=keys).hidden, generator.scorer(call)

        def terms(
            hidden: Float[Array, "row chunk embed"],
            targets: Int[Array, "row chunk"],
            weights: Float[Array, "row chunk"],
            draws: UInt32[Array, "row chunk words"],
        ) -> tuple[Sums, Int[Array, "row chunk"]]:
            logits = scores(hidden)
            log_p, _ = log_probability(logits, targets, call.layout)
            hit = likeliest(logits, targets, call.layout)
            sums = {"masked_lm": -jnp.sum(weights * log_p), "generator_accuracy": jnp.sum(weights * hit)}
            return sums, draw(logits, draws, call.layout)

        aligned = (batch.targets, batch.weights, batch.extra["draws"])
        return sums_and_tokens_by_chunk(terms, hidden, aligned, self.masking.kind.chunks, ("generator_accuracy",))


def told(scores: Float[Array, "row pos"], replaced: Bool[Array, "row pos"], real: Bool[Array, "row pos"]) -> Sums:
    """-log p of whether each real token was replaced, with p = sigmoid(score) that it was; and what is measured."""
    nats = jax.nn.softplus(scores) - jnp.where(replaced, scores, 0.0)
    right = (scores > 0) == replaced
    return {
        name: jnp.sum(jnp.where(real, value, 0.0), dtype=jnp.float32)
        for name, value in zip(OF_ALL, (nats, right, replaced), strict=True)
    }
