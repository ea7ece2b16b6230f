"""What attention knows of distances, laid out by key.

A query meets every distance once and not every key's: products with vectors of distances are as large as those with
keys, and no vector is made for a pair (Dai et al. 2019, arXiv:1901.02860, appendix B).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.products import einsum32

Weights = Float[Array, "row kv_heads group query key"]


def distances(mask: Mask) -> Int[np.ndarray, "distance"]:
    """Positions from a key up to its query, the longest first, that a segment of so many keys can have."""
    keys = mask.k_positions.shape[1]
    return np.arange(keys - 1, -1 if mask.causal else -keys, -1)


def spread(x: Float[Array, "#row heads #query distance"], mask: Mask) -> Float[Array, "_ heads query key"]:
    """What is known of the distance of each query and key; `x` in the order of `distances`, of each row or of all.

    Keys that are not seen get anything. In a segment each token's position is one more than that of the token
    before: where it is not, NaN. Raises UsageError for a prefix: a causal mask knows no distance to keys after
    a query.
    """
    if mask.prefix is not None:
        raise UsageError(
            "a prefix is seen from both sides, and these positions count distances to what stands before a token "
            "only; choose others, such as model.position:rope"
        )
    q, k = mask.q_positions[:, :, None], mask.k_positions[:, None, :]
    seen, keys = mask.dense(), k.shape[2]
    x = jnp.broadcast_to(x, (*x.shape[:2], q.shape[1], x.shape[3]))
    if mask.aligned:
        places = jnp.arange(keys)
        apart = places[None, :, None] - places[None, None, :]
        wrong = jnp.any(seen & (q - k != apart), axis=0)
        x = _shifted(x)
        if mask.causal:  # under the keys that follow lie the next query's distances
            x = jnp.where(apart[:, None] >= 0, x, 0)
        return jnp.where(wrong[None, None], jnp.nan, x)
    place = jnp.where(seen, keys - 1 - (q - k), 0)
    place = jnp.where(place < 0, x.shape[3], place)  # a negative one would count from the end
    return jnp.take_along_axis(x, place[:, None], axis=3, mode="fill", fill_value=jnp.nan)


def _shifted(x: Float[Array, "some heads query distance"]) -> Float[Array, "some heads query key"]:
    """Each query's distances one place further than those of the query before it, so that keys lie under keys."""
    some, heads, length, count = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(some, heads, -1)
    flat = flat[:, :, length - 1 : length - 1 + length * count]
    return flat.reshape(some, heads, length, count)[..., :length]


@struct.dataclass
class Content:
    """Vectors of distances: queries meet `keys` beside the keys, and `values` are mixed beside the values.

    They are in the order of `distances`. With `clip` they are those of -clip to clip, or to 0 if causal, of a key's
    position less its query's; longer distances have the last one's.
    """

    queries: Float[Array, "row query heads head"]
    keys: Float[Array, "vector kv_heads head"]
    """Of as many heads as divide those of the queries."""
    values: Float[Array, "vector head"] | None = None
    clip: int | None = struct.field(pytree_node=False, default=None)

    def scores(self, mask: Mask, scale: float) -> Float[Array, "row heads query key"]:
        """Scaled products of queries and keys of distances, float32."""
        rows, length, heads, head = self.queries.shape
        shape = (rows, length, self.keys.shape[1], heads // self.keys.shape[1], head)
        grouped = self.queries.reshape(shape) * jnp.asarray(scale, self.queries.dtype)
        found = einsum32("rqngd,tnd->rngqt", grouped, self.keys)
        return self._by_key(found.reshape(rows, heads, length, -1), mask)

    def mixed(self, weights: Weights, mask: Mask) -> Float[Array, "row query kv_heads group head"]:
        """Values of distances by the weights of the keys that have them, float32."""
        rows, kv_heads, groups, length, keys = weights.shape
        heads, count = kv_heads * groups, self.values.shape[0]
        by_key = functools.partial(self._by_key, mask=mask)
        shape = jax.ShapeDtypeStruct((rows, heads, length, count), weights.dtype)
        (gathered,) = jax.linear_transpose(by_key, shape)(weights.reshape(rows, heads, length, keys))
        # In float32 as the weights are: there are few vectors, and XLA's CPU backend lacks this product in 16 bits.
        found = einsum32("rhqt,td->rqhd", gathered, self.values.astype(gathered.dtype))
        return found.reshape(rows, length, kv_heads, groups, -1)

    def _by_key(self, x: Float[Array, "row heads query vector"], mask: Mask) -> Float[Array, "row heads query key"]:
        return spread(x if self.clip is None else _extended(x, self.clip, mask), mask)


@struct.dataclass
class Disentangled:
    """Vectors of buckets of distances, as queries meet them and as keys do (arXiv:2006.03654, equation 4).

    Both are [2 * buckets, heads, head], from the bucket of the keys that follow furthest to that of the furthest
    before; `buckets` says where each of `distances` is.
    """

    queries: Float[Array, "row query heads head"]
    keys: Float[Array, "row key heads head"]
    by_queries: Float[Array, "vector heads head"]
    by_keys: Float[Array, "vector heads head"]
    buckets: Int[np.ndarray, "distance"] = struct.field(pytree_node=False)
    values: None = struct.field(pytree_node=False, default=None)

    def scores(self, mask: Mask, scale: float) -> Float[Array, "row heads query key"]:
        """Scaled products of queries with vectors of distances, and of keys with them, float32."""
        across = dataclasses.replace(
            mask,
            q_positions=mask.k_positions,
            k_positions=mask.q_positions,
            q_segments=mask.k_segments,
            k_segments=mask.q_segments,
        )
        content = _met(self.queries, self.by_queries, self.buckets, scale)
        # A key's distances are counted from the other side.
        position = _met(self.keys, self.by_keys, self.buckets[::-1], scale)
        return spread(content, mask) + jnp.swapaxes(spread(position, across), 2, 3)


def _met(
    x: Float[Array, "row pos heads head"],
    vectors: Float[Array, "vector heads head"],
    buckets: Int[np.ndarray, "distance"],
    scale: float,
) -> Float[Array, "row heads pos distance"]:
    """Products with the vectors, laid out by distance."""
    found = einsum32("rqhd,thd->rhqt", x * jnp.asarray(scale, x.dtype), vectors)
    return jnp.take(found, jnp.asarray(buckets), axis=3)


def _extended(
    x: Float[Array, "row heads query vector"], clip: int, mask: Mask
) -> Float[Array, "row heads query distance"]:
    """All distances of the mask from the clipped ones."""
    longest = mask.k_positions.shape[1] - 1
    unused, more = max(clip - longest, 0), max(longest - clip, 0)
    x = x[..., unused : x.shape[3] - (0 if mask.causal else unused)]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more, 0 if mask.causal else more)), mode="edge")
