"""Attention on NVIDIA GPUs by cuDNN's fused kernels: linear memory, documents of a row apart.

Takes causal attention of a row with itself, with segments and a window, in 16-bit formats; no soft cap, no bias.
cuDNN is told where each document starts and how long it is, so a document's tokens must follow each other. It is
told of so many documents at once; a row of more takes more passes, of which each finds its own.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

# What jax.nn.dot_product_attention calls; that one cannot be told of several documents in a row.
from jax._src.cudnn.fused_attention_stablehlo import (
    AttentionLayout,
    MaskType,
    _dot_product_attention_bwd_rule,
    dot_product_attention,
)
from jaxtyping import Array, Bool, Float, Int

from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.remat import named

DOCUMENTS = 16
"""Documents of a row that one pass takes; cuDNN makes room for the normalizers of so many whole rows."""
HEAD_MULTIPLE, WIDEST_HEAD = 8, 256

Queries = Float[Array, "row pos heads head"]
Keys = Float[Array, "row pos kv_heads head"]
Segments = Int[Array, "row pos"]
Normalizers = Float[Array, "row pos heads"]
Kept = Float[Array, "slots heads pos"]
"""One slot for each document that a pass can take of each row."""


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
    return _attend(named("query", q), named("key", k), named("value", v), mask.q_segments, scale, mask.window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q: Queries, k: Keys, v: Keys, segments: Segments, scale: float, window: int | None) -> Queries:
    return _mixed(q, k, v, segments, scale, window)[0]


def _forward(q: Queries, k: Keys, v: Keys, segments: Segments, scale: float, window: int | None):
    mixed, normalizers = (named("attention", x) for x in _mixed(q, k, v, segments, scale, window))
    return mixed, (q, k, v, segments, mixed, normalizers)


def _backward(scale: float, window: int | None, saved: tuple, cotangent: Queries):
    q, k, v, segments, mixed, normalizers = saved

    def add(passed: Array, gradients: tuple[Queries, Keys, Keys]) -> tuple[Queries, Keys, Keys]:
        some = Documents.of(segments, passed)
        into = jnp.where(some.taken[..., None, None], cotangent, 0)
        found = _gradients(q, k, v, some, some.apart(normalizers), mixed, into, scale, window)
        return jax.tree.map(lambda new, old: jnp.where(some.taken[..., None, None], new, old), found, gradients)

    zeros = jax.tree.map(jnp.zeros_like, (q, k, v))
    return *jax.lax.fori_loop(0, _passes(segments), add, zeros), None


_attend.defvjp(_forward, _backward)


def _mixed(
    q: Queries, k: Keys, v: Keys, segments: Segments, scale: float, window: int | None
) -> tuple[Queries, Normalizers]:
    """Attention and the logarithm of each query's sum of exponentials, of all documents; 0 for padding."""

    def add(passed: Array, old: tuple[Queries, Normalizers]) -> tuple[Queries, Normalizers]:
        some = Documents.of(segments, passed)
        mixed, normalizers = _kernel(q, k, v, some, scale, window)
        # Elsewhere the kernel leaves anything.
        return (
            jnp.where(some.taken[..., None, None], mixed, old[0]),
            jnp.where(some.taken[..., None], some.together(normalizers), old[1]),
        )

    zeros = jnp.zeros_like(q), jnp.zeros(q.shape[:3], jnp.float32)
    return jax.lax.fori_loop(0, _passes(segments), add, zeros)


def _passes(segments: Segments) -> Int[Array, ""]:
    return -(-jnp.max(segments) // DOCUMENTS)


@struct.dataclass
class Documents:
    """What one pass takes of each row, and where cuDNN has its tokens.

    cuDNN keeps normalizers by document: those of all rows that are there one after the other, each document's
    from the first place of a row of its own.
    """

    taken: Bool[Array, "row pos"]
    """Whether a token is in one of the pass's documents; padding is in none."""
    lengths: Int[Array, "row document"]
    """In tokens; -1: no such document."""
    starts: Int[Array, "row document"]
    number: Int[Array, "row pos"]
    """Of a token's document among those of all rows that are there."""
    place: Int[Array, "row pos"]
    """Of a token in its document."""

    @classmethod
    def of(cls, segments: Segments, passed: Int[Array, ""]) -> Documents:
        """Those of a pass."""
        document = segments - 1 - passed * DOCUMENTS
        own = document[:, None, :] == jnp.arange(DOCUMENTS, dtype=segments.dtype)[None, :, None]
        lengths = jnp.sum(own, axis=-1, dtype=jnp.int32)
        there = lengths > 0
        starts = jnp.where(there, jnp.argmax(own, axis=-1).astype(jnp.int32), -1)
        numbers = jnp.cumsum(there).reshape(there.shape) - 1
        inside = jnp.clip(document, 0, DOCUMENTS - 1)
        return cls(
            taken=(document >= 0) & (document < DOCUMENTS) & (segments > 0),
            lengths=jnp.where(there, lengths, -1),
            starts=starts,
            number=jnp.take_along_axis(numbers, inside, axis=1),
            place=jnp.arange(segments.shape[1])[None] - jnp.take_along_axis(starts, inside, axis=1),
        )

    def together(self, kept: Kept) -> Normalizers:
        """Of each token; of those that are not taken, anything."""
        return kept[self.number, :, self.place]

    def apart(self, normalizers: Normalizers) -> Kept:
        """As cuDNN keeps them; anything behind a document's end and in slots of none."""
        length = normalizers.shape[1]
        slots = jnp.argsort(self.lengths.reshape(-1) < 0, stable=True)  # those that are there come first
        start = self.starts.reshape(-1)[slots]
        place = jnp.minimum(start[:, None] + jnp.arange(length)[None], length - 1)
        return normalizers[slots[:, None] // DOCUMENTS, place].swapaxes(1, 2)

    def told(self) -> tuple[Array, Array, Array, Array]:
        """Lengths and offsets of queries and keys, as cuDNN takes them."""
        starts = jnp.pad(self.starts, ((0, 0), (0, 1)), constant_values=-1)
        return self.lengths, self.lengths, starts, starts


def _kernel(
    q: Queries, k: Keys, v: Keys, some: Documents, scale: float, window: int | None
) -> tuple[Queries, Kept]:
    return dot_product_attention(
        q,
        k,
        v,
        None,
        None,
        *some.told(),
        scale=scale,
        mask_type=MaskType.PADDING_CAUSAL,
        sliding_window_length=window,
        return_residual=True,
    )


def _gradients(
    q: Queries,
    k: Keys,
    v: Keys,
    some: Documents,
    normalizers: Kept,
    mixed: Queries,
    cotangent: Queries,
    scale: float,
    window: int | None,
) -> tuple[Queries, Keys, Keys]:
    """Of queries, keys and values: what the derivative of `dot_product_attention` calls, as that one computes
    the forward pass again.
    """
    unused = jnp.zeros(0, q.dtype)
    saved = (q, k, v, unused, *some.told(), unused, unused, normalizers, mixed)
    layout, settled = AttentionLayout.BTNH.value, {"seed": 42, "dropout_rate": 0.0, "variadic_args": (False, False)}
    options = {"mask_type": MaskType.PADDING_CAUSAL, "layout": layout, "sliding_window_length": window}
    found = _dot_product_attention_bwd_rule(
        scale, **settled, **options, is_training=True, return_residual=False, res=saved, grad_output=cotangent
    )
    return found[:3]
