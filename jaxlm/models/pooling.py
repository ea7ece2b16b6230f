"""From hidden states to one vector a document: what a classifier scores, and what an embedding is."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.layers.contracts import Call, Tokens

Pooling = Literal["first", "mean", "last", "tokens"]


def pooled(
    hidden: Float[Array, "row pos embed"], tokens: Tokens, kind: Pooling, call: Call
) -> Float[Array, "row pos embed"]:
    """At every position the vector of its document: of its first or last token, or the mean, summed in float32.

    "tokens" leaves each position its own. A document's vector depends neither on what else its row holds nor on
    the side of the padding, at whose positions anything may stand. A document that goes on in another row is two.
    """
    if kind == "tokens":
        return hidden
    layout, own = call.layout, hidden.shape[1]
    whole, segments, positions = (
        layout.collect(x, "tokens", 1) for x in (hidden, tokens.segments, tokens.positions)
    )
    found = jax.vmap(_mean if kind == "mean" else _end(kind))(whole, segments, positions)
    if layout.parts("tokens") == 1:
        return found
    return jax.lax.dynamic_slice_in_dim(found, layout.index("tokens") * own, own, axis=1)


Row = Float[Array, "pos embed"]
Numbers = Int[Array, "pos"]


def _mean(hidden: Row, segments: Numbers, positions: Numbers) -> Row:
    most = hidden.shape[0] + 1
    total = jax.ops.segment_sum(hidden.astype(jnp.float32), segments, most)
    count = jax.ops.segment_sum(jnp.ones_like(segments), segments, most)
    mean = total / jnp.maximum(count, 1).astype(jnp.float32)[:, None]
    return mean[segments].astype(hidden.dtype)


def _end(kind: Pooling):
    """The token of the smallest or the largest position: devices may hold a row in another order."""
    extreme = jax.ops.segment_min if kind == "first" else jax.ops.segment_max

    def end(hidden: Row, segments: Numbers, positions: Numbers) -> Row:
        most = hidden.shape[0] + 1
        wanted = extreme(positions, segments, most)[segments] == positions
        places = jax.ops.segment_max(jnp.where(wanted, jnp.arange(most - 1), -1), segments, most)
        return hidden[places[segments]]

    return end
