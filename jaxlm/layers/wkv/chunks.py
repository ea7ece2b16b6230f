"""What the chunked forms of RWKV's recurrences share.

A state decays by exp(log decay) <= 1 at each token, every channel at its own rate. Within a chunk token s reaches
token t with all decays between them, exp(of their sum), which a product of two matrices can only give as one factor
for t and one for s. Taken from a common token both exponents may be large and of opposite signs; here chunks grow
by doubling, and what the first half hands to the second is split where the halves meet: both factors are at most 1.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

CHUNK = 32
"""Tokens of a chunk, a power of two."""
SMALL = 2
"""Halves up to this length are multiplied feature by feature: XLA's CPU backend is slow at matrices so small."""

Form = Literal["auto", "scan", "chunked"]
"""How a recurrence is computed: token by token, in chunks, or the faster of both."""


def in_chunks(form: Form, length: int) -> bool:
    """Whether a row of `length` tokens is computed in chunks."""
    return form == "chunked" or (form == "auto" and length >= CHUNK)


def cut(x: Float[Array, "row pos heads head"]) -> Float[Array, "row heads chunk token head"]:
    """Float32 chunks, the last one filled up with zeros."""
    rows, length, heads, head = x.shape
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, -length % CHUNK), (0, 0), (0, 0)))
    return jnp.transpose(x.reshape(rows, -1, CHUNK, heads, head), (0, 3, 1, 2, 4))


def joined(x: Float[Array, "row heads chunk token head"], length: int) -> Float[Array, "row pos heads head"]:
    """The first `length` tokens of the chunks."""
    rows, heads, _, _, head = x.shape
    return jnp.transpose(x, (0, 2, 3, 1, 4)).reshape(rows, -1, heads, head)[:, :length]


@struct.dataclass
class Documents:
    """Which tokens of a chunk are of one document; for factors and products, 1.0 or 0.0.

    A state is emptied at a document's first token.
    """

    together: Float[Array, "row 1 chunk token token"]
    """Whether both tokens are of one document."""
    old: Float[Array, "row 1 chunk token 1"]
    """Whether a token's document began before the chunk."""
    lasting: Float[Array, "row 1 chunk token 1"]
    """Whether a token's document is that of the chunk's last token."""
    whole: Float[Array, "row 1 chunk 1"]
    """Whether no document begins in the chunk."""

    @classmethod
    def of(cls, starts: Bool[Array, "row pos"]) -> Documents:
        """From the first tokens of documents."""
        rows, length = starts.shape
        starts = jnp.pad(starts, ((0, 0), (0, -length % CHUNK))).reshape(rows, -1, CHUNK)
        begun = jnp.cumsum(starts, axis=-1)
        last = begun[:, :, -1:]
        together, old = begun[..., :, None] == begun[..., None, :], begun == 0
        found = (together, old[..., None], (begun == last)[..., None], last == 0)
        return cls(*(jnp.expand_dims(x.astype(jnp.float32), 1) for x in found))


def dot(spec: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`einsum` in full float32, on TPUs too: what states add up would otherwise be rounded to 8 bits."""
    return jnp.einsum(spec, a, b, precision=jax.lax.Precision.HIGHEST)


@struct.dataclass
class Reach:
    """What tokens of a chunk see of each other, and the decays to and from its ends."""

    scores: Float[Array, "row heads chunk token queries token keys"]
    """sum_i query_t[i] key_s[i] exp(sum of log decays of the tokens between s and t) for s < t; else 0."""
    before: Float[Array, "row heads chunk token head"]
    """Sum of log decays of the tokens before this one."""
    after: Float[Array, "row heads chunk token head"]
    """Sum of log decays of the tokens after this one."""
    total: Float[Array, "row heads chunk head"]
    """Sum of log decays of all tokens."""


def reach(
    queries: Float[Array, "row heads chunk token queries head"],
    keys: Float[Array, "row heads chunk token keys head"],
    decay: Float[Array, "row heads chunk token head"],
) -> Reach:
    """Every kind of query with every kind of key, under one log decay (not positive)."""
    *outer, size, head = decay.shape
    # one dimension for all chunks: XLA's CPU backend fails at sums of more dimensions than seven
    lead = (prod(outer),)
    queries, keys, decay = (x.reshape(*lead, *x.shape[3:]) for x in (queries, keys, decay))
    kinds, half = (queries.shape[-2], keys.shape[-2]), 1
    scores = jnp.zeros((*lead, size, 1, kinds[0], 1, kinds[1]), jnp.float32)
    before = after = jnp.zeros((*lead, size, 1, head), jnp.float32)
    total = decay[..., None, :]
    while half < size:
        pairs = (*lead, size // (2 * half), 2, half)
        before, after, total = (x.reshape(*pairs[:-1], -1, head) for x in (before, after, total))
        # of the second half what came before within it, of the first what comes after: no sum is split
        query = queries.reshape(*pairs, kinds[0], head)[..., 1, :, :, :] * jnp.exp(before[..., 1, :, None, :])
        key = keys.reshape(*pairs, kinds[1], head)[..., 0, :, :, :] * jnp.exp(after[..., 0, :, None, :])
        scores = _grown(scores.reshape(*pairs, kinds[0], half, kinds[1]), _products(query, key))
        first, second = total[..., 0, :, :], total[..., 1, :, :]
        before = jnp.concatenate([before[..., 0, :, :], before[..., 1, :, :] + first], axis=-2)
        after = jnp.concatenate([after[..., 0, :, :] + second, after[..., 1, :, :]], axis=-2)
        total, half = first + second, 2 * half
    scores = scores.reshape(*outer, size, kinds[0], size, kinds[1])
    before, after = (x.reshape(*outer, size, head) for x in (before, after))
    return Reach(scores, before, after, total.reshape(*outer, head))


def _products(queries: Array, keys: Array) -> Array:
    """Of all queries of the second halves with all keys of the first, as products of two matrices."""
    *lead, half, a, head = queries.shape
    b = keys.shape[-2]
    left, right = queries.reshape(*lead, half * a, head), keys.reshape(*lead, half * b, head)
    if half > SMALL:
        found = dot("...tn,...sn->...ts", left, right)
    else:
        found = jnp.sum(left[..., :, None, :] * right[..., None, :, :], axis=-1)
    return found.reshape(*lead, half, a, half, b)


def _grown(pairs: Array, lower: Array) -> Array:
    """Chunks of twice the length: two on the diagonal, what the second sees of the first below, zeros above."""
    first, second = pairs[..., 0, :, :, :, :], pairs[..., 1, :, :, :, :]
    first = jnp.concatenate([first, jnp.zeros_like(lower)], axis=-2)
    return jnp.concatenate([first, jnp.concatenate([lower, second], axis=-2)], axis=-4)
