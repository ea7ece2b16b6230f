"""Causal attention in blocks of queries, each against the keys up to its last query.

What lies after a block, or before its first query's window, is never computed: half of the work for many blocks.
Takes every bias and soft cap.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.attention import xla
from jaxlm.layers.attention.mask import Mask

SMALLEST, MOST = 64, 8
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
    bias: Float[Array, "row heads pos pos"] | None,
    softcap: float | None,
    scale: float,
) -> Float[Array, "row pos heads head"]:
    """The same as `xla.attend` for a causal mask whose keys are the queries' own tokens."""
    length = q.shape[1]
    size = max(SMALLEST, -(-length // MOST))
    mixed = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = 0 if mask.window is None else max(0, start - mask.window + 1)
        queries, keys = slice(start, stop), slice(first, stop)
        part = None if bias is None else bias[:, :, queries, keys]
        mixed.append(
            xla.attend(
                q[:, queries],
                k[:, keys],
                v[:, keys],
                mask=mask.block(queries, keys),
                bias=part,
                softcap=softcap,
                scale=scale,
            )
        )
    return jnp.concatenate(mixed, axis=1)
