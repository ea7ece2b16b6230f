"""Products of activations with codes: summed as integers where that is exact and fast.

On a CPU, XLA writes a matrix of integers to memory as floating-point numbers for every product, five times slower
than had it read those to begin with. A product of bytes summed in 32 bits is up to three times faster than that of
float32, if it has at least two rows and both sides are summed over their last dimension. There, few rows of
activations are cut into two or three bytes each, which are rows of one product, exact to the last bits of float32
(experiments/benchmarks/quantized_products.py).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import Axes

Rows = Float[Array, "row input"]
PIECES = {4: 3, 2: 2}
"""Bytes for an activation of so many bytes."""
MOST_ROWS = 96
"""Rows of bytes up to which their product is faster than numbers made of the codes."""
MOST_INPUTS = 2**31 // (127 * 256)
"""Products of so many codes have a sum below 2^31."""


def steps(x: Rows, bits: int) -> Float[Array, "row 1"]:
    """The distance of the levels on which each row is rounded, its largest number the last of them."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    step = largest.astype(jnp.float32) * np.float32(1 / (2 ** (bits - 1) - 1))
    return jnp.where(step >= jnp.finfo(jnp.float32).tiny, step, jnp.float32(1.0))


def token_steps(rows: Rows, bits: int, contracted: Axes, call: Call) -> Float[Array, "row 1"]:
    """`steps` of tokens of which each device may have a part, along the axes that a product contracts."""
    largest = jnp.max(jnp.abs(rows), axis=-1, keepdims=True)
    for axis in contracted:
        largest = jnp.max(call.layout.collect(largest, axis, 1), axis=1, keepdims=True)
    return jax.lax.stop_gradient(steps(largest, bits))


def on_levels(x: Rows, step: Float[Array, "#row 1"], bits: int) -> Int[Array, "row input"]:
    """The nearest level of each number, in int8; what is beyond the last level is there."""
    most = 2 ** (bits - 1) - 1
    return jnp.clip(jnp.round(x.astype(jnp.float32) / step), -most - 1, most).astype(jnp.int8)


def straight_through(x: Rows, step: Float[Array, "#row 1"], bits: int) -> Rows:
    """x on its levels; the gradient passes where nothing is clipped."""
    rounded = on_levels(x, step, bits).astype(jnp.float32) * step
    passed = jnp.where(_inside(x, step, bits), x, jax.lax.stop_gradient(x))
    return passed + jax.lax.stop_gradient(rounded.astype(x.dtype) - x)


def _inside(x: Rows, step: Float[Array, "#row 1"], bits: int) -> Array:
    """Where a number is rounded to a level; half a step beyond the last one it is clipped."""
    most = 2 ** (bits - 1) - 1
    return (x >= step * (-most - 1.5)) & (x <= step * (most + 0.5))


def in_pieces(x: Rows, count: int) -> tuple[Int[Array, "piece row input"], Float[Array, "piece row 1"]]:
    """Bytes, and factors of theirs, whose products' sum is x up to half the last factor."""
    step = steps(x, 8)
    rest, pieces, factors = x.astype(jnp.float32) / step, [], []
    for place in range(count):
        pieces.append(jnp.round(rest))
        factors.append(step * np.float32(254.0**-place))
        rest = (rest - pieces[-1]) * 254
    return jnp.stack(pieces).astype(jnp.int8), jnp.stack(factors)


def integer_product(
    x: Int[Array, "row input"], codes: Int[Array, "group output size"]
) -> Int[Array, "group row output"]:
    """Each group's sums of x * code, exactly, in int32; x and codes are int8."""
    groups, _, size = codes.shape
    count = x.shape[0]
    # A lone row is another program on CPUs, ten times slower.
    rows = jnp.concatenate([x, x]) if count == 1 else x
    if groups == 1:
        dims = (((1,), (1,)), ((), ()))
        sums = jax.lax.dot_general(rows, codes[0], dims, preferred_element_type=jnp.int32)[None]
    else:
        dims = (((2,), (2,)), ((1,), (0,)))
        apart = rows.reshape(-1, groups, size)
        sums = jax.lax.dot_general(apart, codes, dims, preferred_element_type=jnp.int32)
    return sums[:, :count]


def numbers(
    codes: Int[Array, "group output size"],
    scale: Float[Array, "#group #output"],
    zero: Float[Array, "#group #output"] | None,
) -> Float[Array, "output input"]:
    """(codes - zero) * scale, groups in a row."""
    shifted = codes.astype(jnp.float32)
    if zero is not None:
        shifted = shifted - zero[:, :, None]
    return jnp.moveaxis(shifted * scale[:, :, None], 0, 1).reshape(codes.shape[1], -1)


def product(
    x: Rows,
    codes: Int[Array, "group output size"],
    scale: Float[Array, "#group #output"],
    zero: Float[Array, "#group #output"] | None,
    step: Float[Array, "#row 1"] | None,
    bits: int,
) -> Float[Array, "row output"]:
    """x times (codes - zero) * scale, in float32; `x` on levels of so many bits, `step` apart.

    Without `step` x is not rounded. The gradient with respect to x passes the rounding where nothing is clipped;
    what is stored has none.
    """
    stored = jax.lax.stop_gradient((codes, scale, zero, step))
    return _product(x, *stored, bits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _product(x: Array, codes: Array, scale: Array, zero: Array | None, step: Array | None, bits: int) -> Array:
    if step is None:
        pieces, factors = in_pieces(x, PIECES[x.dtype.itemsize])
    else:
        pieces, factors = on_levels(x, step, bits)[None], step[None]
    count, rows, inputs = pieces.shape
    flat, (groups, _, size) = pieces.reshape(-1, inputs), codes.shape
    sums = integer_product(flat, codes)
    if zero is None:
        sums = sums.astype(jnp.float32)
    else:
        # The difference can be far smaller than both sides: as integers, as far as zeros are.
        totals = jnp.sum(flat.reshape(-1, groups, size), axis=2, dtype=jnp.int32).T[:, :, None]
        whole = jnp.floor(zero)[:, None]
        sums = (sums - totals * whole.astype(jnp.int32)).astype(jnp.float32) - totals * (zero[:, None] - whole)
    scaled = jnp.sum(sums * scale[:, None], axis=0)
    return jnp.sum(scaled.reshape(count, rows, -1) * factors, axis=0)


def _forward(
    x: Array, codes: Array, scale: Array, zero: Array | None, step: Array | None, bits: int
) -> tuple[Array, tuple]:
    inside = None if step is None else _inside(x, step, bits)
    return _product(x, codes, scale, zero, step, bits), (codes, scale, zero, inside, jnp.zeros((), x.dtype))


def _backward(bits: int, saved: tuple, g: Array) -> tuple:
    codes, scale, zero, inside, like = saved
    dx = jax.lax.dot_general(g, numbers(codes, scale, zero), (((1,), (0,)), ((), ())))
    dx = dx if inside is None else jnp.where(inside, dx, 0.0)
    return dx.astype(like.dtype), None, None, None, None


_product.defvjp(_forward, _backward)
