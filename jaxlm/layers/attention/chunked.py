"""Attention in memory linear in length: pieces of queries against pieces of keys, the softmax kept running.

Milakov and Gimelshein 2018 (arXiv:1805.02867) for the running softmax; Dao 2023 (arXiv:2307.08691, algorithms 1 and
2) for the backward pass, which computes scores again from the normalizers. Pieces that see nothing of each other,
by causality or by documents, are skipped. Takes segments, prefixes, windows and soft caps in any order of
positions; no bias.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from jaxlm.layers.attention.heads import Keys, Queries, heads_first, heads_last
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.attention.xla import MASKED
from jaxlm.layers.products import einsum32
from jaxlm.layers.remat import named

SMALLEST, PIECE = 32, 512
"""Queries and keys of a piece: fewest, and most."""


@struct.dataclass
class Running:
    """A softmax under way: sum of exp(score - highest) value, of exp(score - highest), and the highest score."""

    mixed: Float[Array, "row kv_heads group query head"]
    weight: Float[Array, "row kv_heads group query 1"]
    highest: Float[Array, "row kv_heads group query 1"]

    @staticmethod
    def empty(q: Queries) -> Running:
        """Nothing seen."""
        one = (*q.shape[:-1], 1)
        return Running(jnp.zeros(q.shape, jnp.float32), jnp.zeros(one, jnp.float32), jnp.full(one, MASKED))

    def result(self) -> tuple[Queries, Float[Array, "row kv_heads group query 1"]]:
        """(attention, logsumexp of scores); zero, and no weight for any score, where nothing was seen."""
        seen = self.weight > 0
        weight = jnp.where(seen, self.weight, 1.0)
        return self.mixed / weight, jnp.where(seen, self.highest + jnp.log(weight), -MASKED)


@struct.dataclass
class Gradients:
    """Sums of what pieces add to the gradients, float32."""

    q: Queries
    k: Keys
    v: Keys

    @staticmethod
    def empty(q: Queries, k: Keys, v: Keys) -> Gradients:
        """Zeros."""
        return Gradients(*(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v)))


def refusal(queries: int, keys: int, bias: Array | None) -> str:
    """Why this attention is not for pieces, or nothing."""
    if bias is not None:
        return "it takes no bias"
    for length in (queries, keys):
        if size(length) < min(length, SMALLEST):
            return f"{length} positions have no divisor from {SMALLEST} to {PIECE}, to be cut into pieces of"
    return ""


def attend(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    v: Float[Array, "row key kv_heads head"],
    mask: Mask,
    *,
    softcap: float | None,
    scale: float,
) -> Float[Array, "row query heads head"]:
    """The same as `xla.attend`, except that a query that sees nothing gets zeros."""
    queries, keys, values = heads_first(q, k, v, scale)
    return heads_last(_attend(queries, keys, values, mask, softcap), q)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: Queries, k: Keys, v: Keys, mask: Mask, softcap: float | None) -> Queries:
    return _forward(q, k, v, mask, softcap)[0]


def _forward(q: Queries, k: Keys, v: Keys, mask: Mask, softcap: float | None) -> tuple[Queries, Any]:
    mixed, normalizer = add(Running.empty(q), q, k, v, mask, softcap).result()
    mixed, normalizer = named("attention", mixed.astype(q.dtype)), named("attention", normalizer)
    return mixed, (q, k, v, mask, mixed, normalizer)


def _backward(softcap: float | None, saved: Any, cotangent: Queries) -> tuple[Queries, Keys, Keys, Any]:
    q, k, v, mask, mixed, normalizer = saved
    shares = shares_of(cotangent, mixed)
    found = add_gradients(Gradients.empty(q, k, v), q, k, v, mask, softcap, cotangent, normalizer, shares)
    return found.q.astype(q.dtype), found.k.astype(k.dtype), found.v.astype(v.dtype), no_gradient(mask)


_attend.defvjp(_forward, _backward)


def shares_of(cotangent: Queries, mixed: Queries) -> Float[Array, "row kv_heads group query 1"]:
    """What the normalizer takes from every score's gradient."""
    return jnp.sum(cotangent.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)


def no_gradient(mask: Mask) -> Mask:
    """Positions and segments are whole numbers: no gradient is defined for them."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jax.dtypes.float0), mask)


def add(running: Running, q: Queries, k: Keys, v: Keys, mask: Mask, softcap: float | None) -> Running:
    """The softmax after these keys too."""
    # `jax.checkpoint` would compute what depends on the mask alone beforehand, and keep it for every piece.
    q, k, v, mask = lax.optimization_barrier((q, k, v, mask))

    def piece(running: Running, queries: Any, keys: Any, seen: Array) -> Running:
        (q,), (k, v) = queries, keys
        scores = jnp.where(seen[:, None, None], _capped(einsum32("rngqd,rnkd->rngqk", q, k), softcap), MASKED)
        highest = jnp.maximum(running.highest, jnp.max(scores, axis=-1, keepdims=True))
        # A query that sees nothing here must not count its masked scores.
        weights = jnp.where(seen[:, None, None], jnp.exp(scores - highest), 0.0)
        before = jnp.exp(running.highest - highest)
        mixed = running.mixed * before + einsum32("rngqk,rnkd->rngqd", weights.astype(v.dtype), v)
        return Running(mixed, running.weight * before + jnp.sum(weights, axis=-1, keepdims=True), highest)

    def one(running: Running, place: Any) -> Running:
        i, _ = place
        part = _cut(running, i, 3, size(q.shape[3]))
        part = _if_seen(piece, part, place, (q,), (k, v), mask)
        return _put(running, part, i, 3)

    return _over_pieces(one, running, q.shape[3], k.shape[2])


def add_gradients(
    found: Gradients,
    q: Queries,
    k: Keys,
    v: Keys,
    mask: Mask,
    softcap: float | None,
    cotangent: Queries,
    normalizer: Float[Array, "row kv_heads group query 1"],
    shares: Float[Array, "row kv_heads group query 1"],
) -> Gradients:
    """The gradients with what these queries and keys add (arXiv:2307.08691, algorithm 2)."""

    def piece(found: Gradients, queries: Any, keys: Any, seen: Array) -> Gradients:
        (q, cotangent, normalizer, shares), (k, v) = queries, keys
        scores = _capped(einsum32("rngqd,rnkd->rngqk", q, k), softcap)
        weights = jnp.where(seen[:, None, None], jnp.exp(scores - normalizer), 0.0)
        d_v = einsum32("rngqk,rngqd->rnkd", weights.astype(q.dtype), cotangent)
        d_scores = weights * (einsum32("rngqd,rnkd->rngqk", cotangent, v) - shares)
        if softcap is not None:
            d_scores *= 1.0 - jnp.square(scores / softcap)
        d_scores = d_scores.astype(q.dtype)
        d_q = einsum32("rngqk,rnkd->rngqd", d_scores, k)
        d_k = einsum32("rngqk,rngqd->rnkd", d_scores, q)
        return Gradients(found.q + d_q, found.k + d_k, found.v + d_v)

    def one(found: Gradients, place: Any) -> Gradients:
        i, j = place
        part = Gradients(
            _cut(found.q, i, 3, size(q.shape[3])),
            *(_cut(x, j, 2, size(k.shape[2])) for x in (found.k, found.v)),
        )
        part = _if_seen(piece, part, place, (q, cotangent, normalizer, shares), (k, v), mask)
        return Gradients(_put(found.q, part.q, i, 3), _put(found.k, part.k, j, 2), _put(found.v, part.v, j, 2))

    return _over_pieces(one, found, q.shape[3], k.shape[2])


def size(length: int) -> int:
    """Positions of a piece: the largest divisor of the length that is at most `PIECE`."""
    return next(size for size in range(min(PIECE, length), 0, -1) if length % size == 0)


def _capped(scores: Array, softcap: float | None) -> Array:
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def _over_pieces(one: Any, carry: Any, queries: int, keys: int) -> Any:
    """`one(carry, (i, j))` for every piece of queries and every piece of keys."""
    rows, columns = queries // size(queries), keys // size(keys)
    i, j = jnp.divmod(jnp.arange(rows * columns), columns)
    return lax.scan(lambda carry, place: (one(carry, place), None), carry, (i, j))[0]


def _if_seen(piece: Any, part: Any, place: Any, queries: Any, keys: Any, mask: Mask) -> Any:
    """`piece(part, ...)` on the pieces of a place, or `part` where no query sees a key."""
    i, j = place
    of_q = functools.partial(_cut, index=i, length=size(mask.q_positions.shape[1]))
    of_k = functools.partial(_cut, index=j, length=size(mask.k_positions.shape[1]))
    here = mask.replace(
        q_positions=of_q(mask.q_positions, axis=1),
        k_positions=of_k(mask.k_positions, axis=1),
        q_segments=of_q(mask.q_segments, axis=1),
        k_segments=of_k(mask.k_segments, axis=1),
        prefix=of_q(mask.prefix, axis=1),
    )
    seen = here.dense()
    return lax.cond(
        jnp.any(seen),
        lambda part: piece(part, of_q(queries, axis=3), of_k(keys, axis=2), seen),
        lambda part: part,
        part,
    )


def _cut(tree: Any, index: Array, axis: int, length: int) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index * length, length, axis), tree)


def _put(tree: Any, part: Any, index: Array, axis: int) -> Any:
    def put(x: Array, piece: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(x, piece, index * piece.shape[axis], axis)

    return jax.tree.map(put, tree, part)
