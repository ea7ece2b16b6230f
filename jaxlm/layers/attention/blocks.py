"""Causal attention in blocks of queries, each against the keys up to its last query.

What lies after a block, or before its first query's window, is never computed: half of the work for many blocks.
Takes every bias and soft cap, and of distances vectors that queries meet.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.attention.distances import Content
from jaxlm.layers.attention.heads import heads_first, heads_last
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.attention.xla import weigh
from jaxlm.layers.products import einsum32
from jaxlm.layers.remat import named

SMALLEST, MOST = 128, 8
"""Queries of a block, and blocks of a row: every block is compiled by itself."""


def takes(mask: Mask) -> bool:
    """Whether keys after a query can be left out by their place alone."""
    return mask.causal and mask.aligned


def attend(
    q: Float[Array, "row pos heads head"],
    k: Float[Array, "row pos kv_heads head"],
    v: Float[Array, "row pos kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "#row heads pos pos"] | None,
    softcap: float | None,
    scale: float,
    content: Content | None = None,
) -> Float[Array, "row pos heads head"]:
    """The same as `xla.attend` for a causal mask whose keys are the queries' own tokens."""
    length = q.shape[1]
    # Once for all blocks: each product would do it for itself.
    queries, keys, values = heads_first(q, k, v, scale)
    inside = None if content is None else content.scores(mask, scale)
    size = max(SMALLEST, -(-length // MOST))
    mixed = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = 0 if mask.window is None else max(0, start - mask.window + 1)
        block, seen = slice(start, stop), slice(first, stop)
        scores = einsum32("rngqd,rnkd->rngqk", queries[..., block, :], keys[:, :, seen])
        if inside is not None:
            scores += inside[:, :, block, seen].reshape(scores.shape)
        part = None if bias is None else bias[:, :, block, seen]
        weights, normalizer = weigh(scores, mask.block(block, seen), part, softcap)
        mixed.append(einsum32("rngqk,rnkd->rngqd", weights.astype(v.dtype), values[:, :, seen]) / normalizer)
    return named("attention", heads_last(jnp.concatenate(mixed, axis=3), q))
