"""Products: summed in float32, with cotangents in the compute format.

In formats below float32 the backward products take cotangents of that format and sum in float32 too; automatic
differentiation of "sum in float32, then round" would hand them float32 cotangents, at twice the cost or more.
On CPUs activations meet weights as matrices, the form that XLA's CPU backend is fastest at; elsewhere as they are,
since flattening heads would cost a copy on a TPU.
"""

from __future__ import annotations

import functools
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Matrix = Float[Array, "_ _"]


def contract(x: Float[Array, "..."], kernel: Float[Array, "..."], spec: str) -> Float[Array, "..."]:
    """`jnp.einsum(spec, x, kernel)` for specs "batch inputs, inputs outputs" and "batch inputs, outputs inputs".

    The contracted dimensions are the last of `x` and the first (or the last) of `kernel`, in one order, as in
    "rpe,ehd->rphd" or "rpe,ve->rpv". Both operands have one dtype, which is the result's.
    Raises ValueError for any other spec.
    """
    return _differentiable(x, kernel, *_parse(spec))


def trailing(vector: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`vector` with leading dimensions of size one, so that it meets the last dimensions of `x`, in x's dtype."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - vector.ndim) + vector.shape)


def sides(spec: str, axes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kernel's axes that a product contracts, and the others."""
    count, transposed = _parse(spec)
    if transposed:
        return axes[len(axes) - count :], axes[: len(axes) - count]
    return axes[:count], axes[count:]


def is_transposed(spec: str) -> bool:
    """Whether a product contracts the last dimensions of its kernel, as a tied head does."""
    return _parse(spec)[1]


@functools.cache
def _parse(spec: str) -> tuple[int, bool]:
    """Number of contracted dimensions, and whether the kernel has its outputs first."""
    operands, result = spec.replace(" ", "").split("->")
    left, right = operands.split(",")
    shared = [letter for letter in left if letter in right]
    count = len(shared)
    batch, inputs = left[: len(left) - count], left[len(left) - count :]
    if right[:count] == inputs and result == batch + right[count:]:
        return count, False
    if right[len(right) - count :] == inputs and result == batch + right[: len(right) - count]:
        return count, True
    raise ValueError(f"{spec!r}: expected 'batch inputs, inputs outputs -> batch outputs' or the kernel transposed")


def _contract(a: Array, b: Array, a_dims: tuple[int, ...], b_dims: tuple[int, ...]) -> Array:
    dims = ((a_dims, b_dims), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32).astype(a.dtype)


def _dot(a: Matrix, b: Matrix, a_dim: int, b_dim: int) -> Matrix:
    return _contract(a, b, (a_dim,), (b_dim,))


def _flat(x: Array, kernel: Array, count: int, transposed: bool) -> Array:
    """The product as one of matrices."""
    batch, inputs = x.shape[: x.ndim - count], x.shape[x.ndim - count :]
    outputs = kernel.shape[: kernel.ndim - count] if transposed else kernel.shape[count:]
    matrix = x.reshape(prod(batch), prod(inputs))
    weights = kernel.reshape(prod(outputs), -1) if transposed else kernel.reshape(prod(inputs), prod(outputs))
    return _dot(matrix, weights, 1, 1 if transposed else 0).reshape(*batch, *outputs)


def _whole(x: Array, kernel: Array, count: int, transposed: bool) -> Array:
    """The product of the dimensions as they are."""
    first = kernel.ndim - count if transposed else 0
    return _contract(x, kernel, tuple(range(x.ndim - count, x.ndim)), tuple(range(first, first + count)))


def _product(x: Array, kernel: Array, count: int, transposed: bool) -> Array:
    forward = {"cpu": _flat, "default": _whole}
    chosen = {name: functools.partial(f, count=count, transposed=transposed) for name, f in forward.items()}
    return jax.lax.platform_dependent(x, kernel, **chosen)


_differentiable = jax.custom_vjp(_product, nondiff_argnums=(2, 3))


def _forward(x: Array, kernel: Array, count: int, transposed: bool) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel, count, transposed), (x, kernel)


def _backward(count: int, transposed: bool, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    backward = {"cpu": _flat_backward, "default": _whole_backward}
    chosen = {name: functools.partial(f, count=count, transposed=transposed) for name, f in backward.items()}
    return jax.lax.platform_dependent(*saved, cotangent, **chosen)


def _whole_backward(x: Array, kernel: Array, g: Array, *, count: int, transposed: bool) -> tuple[Array, Array]:
    batch = tuple(range(x.ndim - count))
    outputs = kernel.ndim - count
    first = 0 if transposed else count
    dx = _contract(g, kernel, tuple(range(len(batch), g.ndim)), tuple(range(first, first + outputs)))
    left, right = (g, x) if transposed else (x, g)
    return dx, _contract(left, right, batch, batch)


def _flat_backward(x: Array, kernel: Array, g: Array, *, count: int, transposed: bool) -> tuple[Array, Array]:
    rows = prod(x.shape[: x.ndim - count])
    matrix, cotangent = x.reshape(rows, -1), g.reshape(rows, -1)
    inputs, outputs = matrix.shape[1], cotangent.shape[1]
    weights = kernel.reshape((outputs, inputs) if transposed else (inputs, outputs))
    dx = _dot(cotangent, weights, 1, 0 if transposed else 1)
    dw = _sum_over_rows(cotangent, matrix) if transposed else _sum_over_rows(matrix, cotangent)
    return dx.reshape(x.shape), dw.reshape(kernel.shape)


def _sum_over_rows(a: Matrix, b: Matrix) -> Matrix:
    """`a.T @ b`, the narrower operand transposed in memory.

    XLA's CPU backend is fast in 16 bits only where the left operand is summed over its last dimension.
    """
    if a.shape[0] % 2 or a.dtype.itemsize != 2:
        return _dot(a, b, 0, 0)
    if a.shape[1] <= b.shape[1]:
        return _dot(_transposed(a), b, 1, 0)
    return _dot(_transposed(b), a, 1, 0).T


def _transposed(x: Matrix) -> Matrix:
    """`x.T`, two rows as one word of 32 bits: XLA would fold a plain transposition back into the product."""
    rows, columns = x.shape
    words = jax.lax.bitcast_convert_type(x.reshape(rows // 2, 2, columns).swapaxes(1, 2), jnp.uint32)
    return jax.lax.bitcast_convert_type(words.T, x.dtype).reshape(columns, rows)


_differentiable.defvjp(_forward, _backward)


def einsum32(spec: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum(spec, a, b)` in float32; every index of an operand is in the other or in the result."""
    return _einsum(a, b, spec) if a.dtype == jnp.float32 else _einsum_rounded(a, b, spec)


def _einsum(a: Array, b: Array, spec: str) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


_einsum_rounded = jax.custom_vjp(_einsum, nondiff_argnums=(2,))


def _einsum_forward(a: Array, b: Array, spec: str) -> tuple[Array, tuple[Array, Array]]:
    return _einsum(a, b, spec), (a, b)


def _einsum_backward(spec: str, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = saved
    operands, result = spec.split("->")
    left, right = operands.split(",")
    rounded = cotangent.astype(a.dtype)
    da = _einsum(rounded, b, f"{result},{right}->{left}")
    db = _einsum(a, rounded, f"{left},{result}->{right}")
    return da.astype(a.dtype), db.astype(b.dtype)


_einsum_rounded.defvjp(_einsum_forward, _einsum_backward)
