"""Attention in plain XLA operations: every score at once.

Takes every mask, bias and soft cap, and vectors of distances.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.attention.distances import Content, Disentangled
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.products import einsum32
from jaxlm.layers.remat import named

MASKED = -1e30
"""Finite, so that a query that sees nothing gets even weights and not NaN."""


def attend(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    v: Float[Array, "row key kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None,
    softcap: float | None,
    scale: float,
    content: Content | Disentangled | None = None,
) -> Float[Array, "row query heads head"]:
    """softmax(cap(scale q k^T) + bias) v with the softmax in float32 (Vaswani et al. 2017, equation 1)."""
    rows, length, heads, head = q.shape
    q, k, v = named("query", q), named("key", k), named("value", v)
    scores = _products(q, k, mask, scale, content)
    weights, normalizer = weigh(scores, mask, bias, softcap)
    mixed = einsum32("rngqk,rknd->rqngd", weights.astype(v.dtype), v)
    if content is not None and content.values is not None:
        mixed += content.mixed(weights, mask)
    mixed /= jnp.moveaxis(normalizer, 3, 1)
    return named("attention", mixed.reshape(rows, length, heads, head).astype(q.dtype))


def seen_scores(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None,
    softcap: float | None,
    scale: float,
    content: Content | Disentangled | None = None,
) -> Float[Array, "row heads query key"]:
    """What `attend` takes the softmax of: float32, `MASKED` where a query does not see a key."""
    found = masked(_products(q, k, mask, scale, content), mask, bias, softcap)
    return found.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])


def _products(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    mask: Mask,
    scale: float,
    content: Content | Disentangled | None,
) -> Float[Array, "row kv_heads group query key"]:
    rows, length, heads, head = q.shape
    grouped = q.reshape(rows, length, k.shape[2], heads // k.shape[2], head) * jnp.asarray(scale, q.dtype)
    scores = einsum32("rqngd,rknd->rngqk", grouped, k)
    return scores if content is None else scores + content.scores(mask, scale).reshape(scores.shape)


def masked(
    scores: Float[Array, "row kv_heads group query key"],
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None,
    softcap: float | None,
) -> Float[Array, "row kv_heads group query key"]:
    """Scores as the softmax takes them."""
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores += bias.reshape(-1, *scores.shape[1:]).astype(jnp.float32)
    return jnp.where(mask.dense()[:, None, None], scores, MASKED)


def weigh(
    scores: Float[Array, "row kv_heads group query key"],
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None,
    softcap: float | None,
) -> tuple[Float[Array, "row kv_heads group query key"], Float[Array, "row kv_heads group query 1"]]:
    """The softmax's numerators and their sum, which divides the mixed values: one pass less over the scores."""
    scores = masked(scores, mask, bias, softcap)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    return weights, jnp.sum(weights, axis=-1, keepdims=True)
