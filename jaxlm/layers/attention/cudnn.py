"""Attention on NVIDIA GPUs by cuDNN's fused kernels: linear memory, documents of a row apart.

Takes causal attention of a row with itself, with segments and a window, in 16-bit formats; no soft cap, no bias.
cuDNN is told where each document starts and how long it is, so a document's tokens must follow each other. It is
told of so many documents at once; a row of more takes more passes, of which each finds its own.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# What jax.nn.dot_product_attention calls; that one cannot be told of several documents in a row.
from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention
from jaxtyping import Array, Bool, Float, Int

from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.remat import named

DOCUMENTS = 16
"""Documents of a row that one pass takes; cuDNN makes room for the normalizers of so many whole rows."""
HEAD_MULTIPLE, WIDEST_HEAD = 8, 256

Queries = Float[Array, "row pos heads head"]
Keys = Float[Array, "row pos kv_heads head"]
Segments = Int[Array, "row pos"]


def refusal(q: Queries, mask: Mask, bias: Array | None, softcap: float | None) -> str:
    """Why this attention is not for the kernel, or nothing."""
    head = q.shape[3]
    if not (mask.causal and mask.aligned):
        return "it takes causal attention of a row with itself only"
    if bias is not None or softcap is not None:
        return "it takes no bias" if softcap is None else "it takes no soft cap"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it takes 16-bit formats only, not {q.dtype}"
    if head % HEAD_MULTIPLE or head > WIDEST_HEAD:
        return f"heads of {head} features are not a multiple of {HEAD_MULTIPLE} up to {WIDEST_HEAD}"
    return ""


def attend(q: Queries, k: Keys, v: Keys, mask: Mask, *, scale: float) -> Queries:
    """The same as `xla.attend`, except for queries of padding, which get zeros."""
    q, k, v = named("query", q), named("key", k), named("value", v)
    return named("attention", _attend(q, k, v, mask.q_segments, scale, mask.window))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q: Queries, k: Keys, v: Keys, segments: Segments, scale: float, window: int | None) -> Queries:
    def add(passed: Array, mixed: Queries) -> Queries:
        found = _kernel(q, k, v, segments, passed, scale, window)
        return jnp.where(_taken(segments, passed), found, mixed)

    return jax.lax.fori_loop(0, _passes(segments), add, jnp.zeros_like(q))


def _forward(q: Queries, k: Keys, v: Keys, segments: Segments, scale: float, window: int | None):
    return _attend(q, k, v, segments, scale, window), (q, k, v, segments)


def _backward(scale: float, window: int | None, saved: tuple, cotangent: Queries):
    # Each pass computes its normalizers again: how many passes there are, and so their size, only the data tell.
    q, k, v, segments = saved

    def add(passed: Array, gradients: tuple[Queries, Keys, Keys]) -> tuple[Queries, Keys, Keys]:
        taken = _taken(segments, passed)
        _, pull = jax.vjp(lambda q, k, v: _kernel(q, k, v, segments, passed, scale, window), q, k, v)
        found = pull(jnp.where(taken, cotangent, 0))
        return jax.tree.map(lambda new, old: jnp.where(taken, new, old), found, gradients)

    zeros = jax.tree.map(jnp.zeros_like, (q, k, v))
    return *jax.lax.fori_loop(0, _passes(segments), add, zeros), None


_attend.defvjp(_forward, _backward)


def _passes(segments: Segments) -> Int[Array, ""]:
    return -(-jnp.max(segments) // DOCUMENTS)


def _taken(segments: Segments, passed: Int[Array, ""]) -> Bool[Array, "row pos 1 1"]:
    """Whether a token is in one of a pass's documents; padding is in none. Elsewhere the kernel leaves anything."""
    return ((segments - 1) // DOCUMENTS == passed)[..., None, None]


def _kernel(
    q: Queries, k: Keys, v: Keys, segments: Segments, passed: Int[Array, ""], scale: float, window: int | None
) -> Queries:
    documents = passed * DOCUMENTS + 1 + jnp.arange(DOCUMENTS, dtype=segments.dtype)
    own = segments[:, None, :] == documents[None, :, None]
    lengths = jnp.sum(own, axis=-1, dtype=jnp.int32)
    # -1: no such document
    starts = jnp.where(lengths > 0, jnp.argmax(own, axis=-1).astype(jnp.int32), -1)
    lengths = jnp.where(lengths > 0, lengths, -1)
    starts = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1)
    return dot_product_attention(
        q,
        k,
        v,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=starts,
        kv_offsets=starts,
        scale=scale,
        mask_type=MaskType.PADDING_CAUSAL,
        sliding_window_length=window,
    )
