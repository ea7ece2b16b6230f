"""Products of experts: summed in float32, with cotangents in the compute format, as in `layers.products`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.layers.moe import megablox
from jaxlm.layers.products import einsum32
from jaxlm.parallel.layout import Layout


def batched(
    x: Float[Array, "experts slot inputs"], kernels: Float[Array, "experts inputs outputs"]
) -> Float[Array, "experts slot outputs"]:
    """Each expert's product with its own slots, of which all have the same number."""
    return einsum32("xsi,xio->xso", x, kernels).astype(x.dtype)


def ragged(
    x: Float[Array, "slot inputs"],
    kernels: Float[Array, "experts inputs outputs"],
    sizes: Int[Array, "experts"],
    layout: Layout,
) -> Float[Array, "slot outputs"]:
    """The product of each expert with its own slots, `sizes` of them, one expert after the other; then zeros.

    On TPUs Pallas kernels compute it, where no part of the program is left for the compiler to split: of what XLA
    does by itself, the gradient of the kernels is multiplied out for every expert, and that of the slots copies the
    kernels. On CPUs and GPUs XLA multiplies every slot with every expert's kernel, masked.
    """
    return _ragged(x, kernels, sizes, layout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _ragged(x: Array, kernels: Array, sizes: Array, layout: Layout) -> Array:
    return _product(x, kernels, sizes, layout, transposed=False)


def _forward(x: Array, kernels: Array, sizes: Array, layout: Layout) -> tuple[Array, tuple[Array, Array, Array]]:
    return _ragged(x, kernels, sizes, layout), (x, kernels, sizes)


def _backward(layout: Layout, saved: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    x, kernels, sizes = saved
    dx = _product(cotangent, kernels, sizes, layout, transposed=True)
    gradient = megablox.over_slots if _has_kernels(layout, x) else over_slots
    return dx, gradient(x, cotangent, sizes).astype(kernels.dtype), None


_ragged.defvjp(_forward, _backward)


def _has_kernels(layout: Layout, x: Array) -> bool:
    return layout.platform == "tpu" and layout.whole() and x.shape[0] % megablox.SLOTS[-1] == 0


def _product(x: Array, kernels: Array, sizes: Array, layout: Layout, *, transposed: bool) -> Array:
    product = megablox.product if _has_kernels(layout, x) else over_inputs
    y = product(x, kernels, sizes, transposed=transposed).astype(x.dtype)
    # What is left in rows of no group differs between backends.
    return jnp.where((jnp.arange(x.shape[0]) < jnp.sum(sizes))[:, None], y, 0)


def over_inputs(
    x: Float[Array, "slot _"],
    kernels: Float[Array, "experts _ _"],
    sizes: Int[Array, "experts"],
    *,
    transposed: bool,
) -> Float[Array, "slot _"]:
    """x times each slot's own kernel, or its transpose, in float32."""
    kernels = kernels.swapaxes(1, 2) if transposed else kernels
    return jax.lax.ragged_dot(x, kernels, sizes, preferred_element_type=jnp.float32)


OVER_SLOTS = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])


def over_slots(
    x: Float[Array, "slot inputs"], y: Float[Array, "slot outputs"], sizes: Int[Array, "experts"]
) -> Float[Array, "experts inputs outputs"]:
    """x^T y of each expert's own slots, in float32."""
    return jax.lax.ragged_dot_general(x, y, sizes, OVER_SLOTS, preferred_element_type=jnp.float32)
