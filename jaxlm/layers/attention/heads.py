"""Heads before positions, as the products of attention take them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.remat import named

Queries = Float[Array, "row kv_heads group query head"]
Keys = Float[Array, "row kv_heads key head"]


def heads_first(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    v: Float[Array, "row key kv_heads head"],
    scale: float,
) -> tuple[Queries, Keys, Keys]:
    """Scaled queries by key head, keys and values, named for `layers.remat`."""
    rows, length, heads, head = q.shape
    grouped = (q * jnp.asarray(scale, q.dtype)).reshape(rows, length, k.shape[2], heads // k.shape[2], head)
    k, v = jnp.transpose(k, (0, 2, 1, 3)), jnp.transpose(v, (0, 2, 1, 3))
    return named("query", jnp.transpose(grouped, (0, 2, 3, 1, 4))), named("key", k), named("value", v)


def heads_last(mixed: Queries, q: Float[Array, "row query heads head"]) -> Float[Array, "row query heads head"]:
    """Back to the shape and the format of the queries that came."""
    return jnp.transpose(mixed, (0, 3, 1, 2, 4)).reshape(q.shape).astype(q.dtype)
