"""What keeps a router healthy: an even load, and logits that do not drift. Sums, never means."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.layers.moe.router import Routing
from jaxlm.parallel.layout import Layout


def load_balance(
    routing: Routing, segments: Int[Array, "row pos"], over: Literal["document", "batch"], layout: Layout
) -> Float[Array, ""]:
    """experts * sum over experts of f * P, summed over documents, or once for all tokens (arXiv:2101.03961, eq. 4).

    f is the share of a document's choices that fell on the expert (no gradient), P the mean of its probability
    over the document's tokens; an even load gives 1. A document cut over rows or over micro-batches counts as its
    own piece in each. Segments of a row are numbered from 1, so that there are at most as many as tokens.

    Written as a sum over tokens of p * (experts * f / tokens of the document): the bracket comes from counts alone
    and the rest adds up over any split of the tokens: within `layout.manual` each device returns its own share.
    """
    chosen = routing.chosen().astype(jnp.float32)
    real = routing.real.astype(jnp.float32)
    if over == "document":
        rows, most = segments.shape[0], segments.shape[1] * layout.parts("tokens")
        row = jnp.arange(rows)[:, None]

        def of_document(x: Array) -> Array:
            sums = jnp.zeros((rows, most + 1, *x.shape[2:])).at[row, segments].add(x, mode="drop")
            return layout.sum(sums, "tokens")[row, segments]

        counts, tokens = of_document(chosen), of_document(real)
    else:
        sums = jnp.sum(chosen, axis=(0, 1), keepdims=True), jnp.sum(real, keepdims=True)
        counts, tokens = layout.sum(layout.sum(sums, "row"), "tokens")
    experts, k = chosen.shape[-1], routing.choices.shape[-1]
    f = counts / (k * jnp.maximum(tokens, 1.0))[..., None]
    share = real[..., None] * experts * f / jnp.maximum(tokens, 1.0)[..., None]
    return jnp.sum(jax.lax.stop_gradient(share) * routing.probabilities)


def router_z(routing: Routing) -> Float[Array, ""]:
    """sum over tokens of logsumexp(logits)^2 (ST-MoE, arXiv:2202.08906, equation 5)."""
    normalizer = jax.nn.logsumexp(routing.logits, axis=-1)
    return jnp.sum(jnp.where(routing.real, jnp.square(normalizer), 0.0))
