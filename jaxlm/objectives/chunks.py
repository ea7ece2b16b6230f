"""Sums over tokens in chunks of positions, so that logits never exist whole.

One term: each chunk's gradient is taken together with its value, so that nothing is computed twice. Several terms:
their factors are unknown until the backward pass, so that each chunk is computed again there. None, as where all
are measured only, has no gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Sums = dict[str, Float[Array, ""]]
Terms = Callable[..., Sums]
"""terms(hidden [row, chunk, embed], *aligned [row, chunk, ...]) -> sums over the chunk."""
TermsAndTokens = Callable[..., tuple[Sums, PyTree]]
"""The same, and what is to be kept of each token: arrays [row, chunk]."""


def sums_by_chunk(
    terms: Terms,
    hidden: Float[Array, "row pos embed"],
    aligned: tuple[Array, ...],
    chunks: int,
    measured: tuple[str, ...] = (),
) -> Sums:
    """sum over chunks of terms(hidden, *aligned), differentiable in hidden and in what `terms` closes over.

    `aligned` is data: no gradient flows to it, and none from the terms that are `measured` only. Positions are
    padded with zeros to a multiple of `chunks`: where the weight is zero, nothing must be added.
    """
    return sums_and_tokens_by_chunk(lambda *piece: (terms(*piece), ()), hidden, aligned, chunks, measured)[0]


def sums_and_tokens_by_chunk(
    terms: TermsAndTokens,
    hidden: Float[Array, "row pos embed"],
    aligned: tuple[Array, ...],
    chunks: int,
    measured: tuple[str, ...] = (),
) -> tuple[Sums, PyTree]:
    """The same for terms that also return something of each token: data too, [row, pos]."""
    pieces = tuple(_cut(x, min(chunks, x.shape[1])) for x in (hidden, *jax.lax.stop_gradient(aligned)))
    example = tuple(piece[0] for piece in pieces)
    losses = [name for name in jax.eval_shape(terms, *example)[0] if name not in measured]
    if len(losses) != 1:
        sums, kept = _scan_sums(jax.checkpoint(terms), pieces)
    else:
        pure, closed_over = jax.closure_convert(terms, *example)
        sums, kept = _fused(pure, losses[0], tuple(closed_over), pieces)
    return sums, jax.tree.map(lambda x: _joined(x, hidden.shape[1]), jax.lax.stop_gradient(kept))


def _cut(x: Array, chunks: int) -> Array:
    """[row, pos, ...] -> [chunk, row, pos / chunks, ...]."""
    missing = -x.shape[1] % chunks
    if missing:
        x = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], chunks, -1, *x.shape[2:]), 1, 0)


def _joined(x: Array, length: int) -> Array:
    """[chunk, row, pos / chunks, ...] -> [row, pos, ...], of which there were `length`."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def _scan_sums(terms: TermsAndTokens, pieces: tuple[Array, ...]) -> tuple[Sums, PyTree]:
    def body(total: Sums, piece: tuple[Array, ...]) -> tuple[Sums, PyTree]:
        value, kept = terms(*piece)
        return jax.tree.map(jnp.add, total, value), kept

    sums, _ = jax.eval_shape(terms, *(p[0] for p in pieces))
    return jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums), pieces)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(pure: TermsAndTokens, loss: str, closed_over: PyTree, pieces: tuple[Array, ...]) -> tuple[Sums, PyTree]:
    return _scan_sums(lambda *piece: pure(*piece, *closed_over), pieces)


def _fused_forward(
    pure: TermsAndTokens, loss: str, closed_over: PyTree, pieces: tuple[Array, ...]
) -> tuple[tuple[Sums, PyTree], Any]:
    hidden, *aligned = pieces

    def body(carry: tuple[Sums, PyTree], piece: tuple[Array, ...]) -> tuple[tuple[Sums, PyTree], PyTree]:
        total, gradient = carry
        hidden, *rest = piece
        value, backward, kept = jax.vjp(lambda h, c: pure(h, *rest, *c), hidden, closed_over, has_aux=True)
        d_hidden, d_closed = backward({name: jnp.full_like(one, name == loss) for name, one in value.items()})
        gradient = jax.tree.map(lambda g, d: g + d.astype(g.dtype), gradient, d_closed)
        return (jax.tree.map(jnp.add, total, value), gradient), (d_hidden, kept)

    shapes, _ = jax.eval_shape(lambda: pure(*(p[0] for p in pieces), *closed_over))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    start = jax.tree.map(lambda c: jnp.zeros(c.shape, jnp.float32), closed_over)
    (total, gradient), (d_hidden, kept) = jax.lax.scan(body, (zero, start), (hidden, *aligned))
    gradient = jax.tree.map(lambda g, c: g.astype(c.dtype), gradient, closed_over)
    return (total, kept), (gradient, d_hidden, aligned)


def _fused_backward(
    _: TermsAndTokens, loss: str, saved: Any, cotangent: tuple[Sums, PyTree]
) -> tuple[PyTree, tuple[Any, ...]]:
    gradient, d_hidden, aligned = saved
    factor = cotangent[0][loss]

    def scaled(x: Array) -> Array:
        return (factor * x.astype(jnp.float32)).astype(x.dtype)

    return jax.tree.map(scaled, gradient), (scaled(d_hidden), *jax.tree.map(_no_gradient, tuple(aligned)))


def _no_gradient(x: Array) -> Any:
    """Targets and weights are data: no gradient is defined for them."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return jnp.zeros(x.shape, jax.dtypes.float0)


_fused.defvjp(_fused_forward, _fused_backward)
