"""Attention over a row whose positions are spread over devices.

Ring (Liu et al. 2023, arXiv:2310.01889): every device keeps its queries while keys and values travel around; memory
and traffic are those of a device's own positions. All-to-all (Jacobs et al. 2023, arXiv:2309.14509): positions are
exchanged for heads, and every device attends over whole rows with some heads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from jaxlm.layers.attention import chunked
from jaxlm.layers.attention.chunked import Gradients, Running
from jaxlm.layers.attention.heads import Keys, Queries, heads_first, heads_last
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.remat import named
from jaxlm.parallel.layout import Layout


def attend(
    q: Float[Array, "row pos heads head"],
    k: Float[Array, "row pos kv_heads head"],
    v: Float[Array, "row pos kv_heads head"],
    mask: Mask,
    *,
    softcap: float | None,
    scale: float,
    layout: Layout,
) -> Float[Array, "row pos heads head"]:
    """`chunked.attend` over all devices' positions; each device passes its own. Any order of positions.

    Causal work is even when each device holds an early and a late part of the row, as `Layout.order` deals
    them out.
    """
    queries, keys, values = heads_first(q, k, v, scale)
    return heads_last(_attend(queries, keys, values, mask, softcap, layout), q)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q: Queries, k: Keys, v: Keys, mask: Mask, softcap: float | None, layout: Layout) -> Queries:
    return _forward(q, k, v, mask, softcap, layout)[0]


def _forward(
    q: Queries, k: Keys, v: Keys, mask: Mask, softcap: float | None, layout: Layout
) -> tuple[Queries, Any]:
    def visit(running: Running, guest: Any) -> Running:
        k, v, positions, segments = guest
        here = mask.replace(k_positions=positions, k_segments=segments)
        return chunked.add(running, q, k, v, here, softcap)

    guest = (k, v, mask.k_positions, mask.k_segments)
    running, _ = _around(visit, Running.empty(q), guest, layout)
    mixed, normalizer = running.result()
    mixed, normalizer = named("attention", mixed.astype(q.dtype)), named("attention", normalizer)
    return mixed, (q, k, v, mask, mixed, normalizer)


def _backward(
    softcap: float | None, layout: Layout, saved: Any, cotangent: Queries
) -> tuple[Queries, Keys, Keys, Any]:
    q, k, v, mask, mixed, normalizer = saved
    shares = chunked.shares_of(cotangent, mixed)
    empty = Gradients.empty(q, k, v)

    def visit(d_q: Queries, guest: Any) -> tuple[Queries, Any]:
        k, v, positions, segments, d_k, d_v = guest
        here = mask.replace(k_positions=positions, k_segments=segments)
        found = chunked.add_gradients(
            Gradients(d_q, d_k, d_v), q, k, v, here, softcap, cotangent, normalizer, shares
        )
        return found.q, (k, v, positions, segments, found.k, found.v)

    # Keys and values take their gradients along, and come home with all of them.
    guest = (k, v, mask.k_positions, mask.k_segments, empty.k, empty.v)

    def turn(carry: Any, _: None) -> tuple[Any, None]:
        d_q, guest = visit(*carry)
        return (d_q, layout.pass_on(guest, "pos")), None

    (d_q, guest), _ = lax.scan(turn, (empty.q, guest), length=layout.shards("pos"))
    return d_q.astype(q.dtype), guest[4].astype(k.dtype), guest[5].astype(v.dtype), chunked.no_gradient(mask)


_attend.defvjp(_forward, _backward)


def _around(visit: Callable[[Any, Any], Any], carry: Any, guest: Any, layout: Layout) -> tuple[Any, Any]:
    """carry = visit(carry, guest) for the guests of all devices, beginning with its own."""

    def turn(both: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        carry, guest = both
        # Sent before it is used, so that sending and computing overlap.
        onward = layout.pass_on(guest, "pos")
        return (visit(carry, guest), onward), None

    return lax.scan(turn, (carry, guest), length=layout.shards("pos"))[0]


def exchanged(
    attend: Callable[..., Float[Array, "row pos heads head"]],
    q: Float[Array, "row pos heads head"],
    k: Float[Array, "row pos kv_heads head"],
    v: Float[Array, "row pos kv_heads head"],
    mask: Mask,
    *,
    layout: Layout,
) -> Float[Array, "row pos heads head"]:
    """`attend(q, k, v, mask)` on whole rows with some of the heads (all-to-all, also called Ulysses).

    Heads of both kinds divide among the devices of a row.
    """
    shards = layout.shards("pos")
    order = layout.order(2 * shards)
    back = np.argsort(order)

    def whole_rows(x: Array) -> Array:
        return _rearranged(layout.exchange(x, "pos", split=2, join=1), back)

    whole = jax.tree.map(lambda x: _rearranged(layout.collect(x, "pos", 1), back), mask)
    mixed = attend(whole_rows(q), whole_rows(k), whole_rows(v), whole)
    return layout.exchange(_rearranged(mixed, order), "pos", split=1, join=2)


def _rearranged(x: Shaped[Array, "row pos ..."], order: np.ndarray) -> Shaped[Array, "row pos ..."]:
    """The parts of each row in another order."""
    parts = x.reshape(x.shape[0], len(order), -1, *x.shape[2:])
    return parts[:, order].reshape(x.shape)
