"""Attention on TPUs by the splash kernels: linear memory, masked blocks skipped.

Takes attention of a row with itself, causal or from both sides, with segments, a window and a soft cap; no bias.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.remat import named

LANES = 128
"""Rows and heads are made of vectors of so many numbers."""

BLOCK = 1024
"""Queries and keys of a block of one vector's heads: the largest that fits the default scoped memory of a core."""


def refusal(q: Float[Array, "row pos heads head"], mask: Mask, bias: Array | None) -> str:
    """Why this attention is not for the kernel, or nothing."""
    length = q.shape[1]
    if not mask.aligned:
        return "it takes attention of a row with itself only"
    if bias is not None:
        return "it takes no bias"
    if length % LANES:
        return f"length {length} must be a multiple of {LANES}"
    return ""


def attend(
    q: Float[Array, "row pos heads head"],
    k: Float[Array, "row pos kv_heads head"],
    v: Float[Array, "row pos kv_heads head"],
    mask: Mask,
    *,
    softcap: float | None,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "row pos heads head"]:
    """The same as `xla.attend`, except for queries of padding, which see padding; `interpret` runs anywhere."""
    queries = _kept("query", q * jnp.asarray(scale, q.dtype))
    keys, values = _kept("key", k), _kept("value", v)
    vectors = -(-q.shape[3] // LANES)
    run = _kernel(q.shape[2], q.shape[1], vectors, mask.causal, mask.window, softcap, interpret)
    segments = kernels.SegmentIds(mask.q_segments, mask.k_segments)
    return _swapped(jax.vmap(run)(queries, keys, values, segments))


def _swapped(x: Float[Array, "row a b head"]) -> Float[Array, "row b a head"]:
    """Heads before positions, or positions before heads."""
    return jnp.transpose(x, (0, 2, 1, 3))


def _kept(name: str, x: Float[Array, "row pos heads head"]) -> Float[Array, "row heads pos head"]:
    """Heads first, named for `layers.remat` in a shape that a TPU keeps without filling vectors up."""
    if x.shape[3] % LANES == 0:
        return named(name, _swapped(x))
    return _swapped(named(name, x.reshape(*x.shape[:2], -1)).reshape(x.shape))


def _seen(length: int, causal: bool, window: int | None) -> masks.Mask:
    """Which keys a query sees by its place; documents are kept apart by segments."""
    shape = (length, length)
    if window is not None:
        return masks.LocalMask(shape, (window - 1, 0 if causal else window - 1), 0)
    return masks.CausalMask(shape) if causal else masks.FullMask(shape)


def _kernel(
    heads: int, length: int, vectors: int, causal: bool, window: int | None, softcap: float | None, interpret: bool
):
    """The kernel of one row, its heads made of so many vectors; result and normalizers are kept as "attention"."""
    sizes = (size for size in (BLOCK, 512, 256) if size * vectors <= BLOCK and length % size == 0)
    block = next(sizes, LANES)
    # Separate kernels for the gradient of queries and for that of keys and values: one for both would leave a part
    # of the former for each block of keys, and summing those takes longer than the products saved.
    blocks = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return kernels.make_splash_mha(
        masks.MultiHeadMask([_seen(length, causal, window)] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )
