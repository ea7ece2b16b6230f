"""Products of experts: summed in float32, with cotangents in the compute format, as in `layers.products`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.layers.products import einsum32
from jaxlm.parallel.layout import Layout

TILES = (512, 256, 128)
"""Slots that a TPU kernel takes at once: the largest that divides their number."""


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

    XLA computes ragged products without waste on TPUs only, and there all but the gradient of the kernels: that one
    it multiplies out for every expert. A Pallas kernel takes it where no part of the program is left for the
    compiler to split. On CPUs and GPUs every slot is multiplied with every expert's kernel, masked.
    """
    return _ragged(x, kernels, sizes, layout.whole())


def _product(x: Array, kernels: Array, sizes: Array, whole: bool) -> Array:
    y = jax.lax.ragged_dot(x, kernels, sizes, preferred_element_type=jnp.float32).astype(x.dtype)
    # What is left in rows of no group differs between backends.
    return jnp.where((jnp.arange(x.shape[0]) < jnp.sum(sizes))[:, None], y, 0)


_ragged = jax.custom_vjp(_product, nondiff_argnums=(3,))


def _forward(x: Array, kernels: Array, sizes: Array, whole: bool) -> tuple[Array, tuple[Array, Array, Array]]:
    return _product(x, kernels, sizes, whole), (x, kernels, sizes)


def _backward(whole: bool, saved: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    x, kernels, sizes = saved
    dx = _product(cotangent, kernels.swapaxes(1, 2), sizes, whole)
    if whole and x.shape[0] % TILES[-1] == 0:
        dw = jax.lax.platform_dependent(x, cotangent, sizes, tpu=over_slots_on_tpu, default=over_slots)
    else:
        dw = over_slots(x, cotangent, sizes)
    return dx, dw.astype(kernels.dtype), None


_ragged.defvjp(_forward, _backward)

OVER_SLOTS = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
)


def over_slots(
    x: Float[Array, "slot inputs"], y: Float[Array, "slot outputs"], sizes: Int[Array, "experts"]
) -> Float[Array, "experts inputs outputs"]:
    """x^T y of each expert's own slots, in float32."""
    return jax.lax.ragged_dot_general(x, y, sizes, OVER_SLOTS, preferred_element_type=jnp.float32)


def over_slots_on_tpu(
    x: Float[Array, "slot inputs"],
    y: Float[Array, "slot outputs"],
    sizes: Int[Array, "experts"],
    *,
    interpret: bool = False,
) -> Float[Array, "experts inputs outputs"]:
    """The same by the kernel of MegaBlocks (arXiv:2211.15841) that jax has for TPUs."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm  # other backends need not wait for Pallas

    slots, most = x.shape[0], TILES[0]
    tile = next(size for size in TILES if slots % size == 0)
    tiles = (tile, min(most, x.shape[1]), min(most, y.shape[1]))
    run = functools.partial(tgmm, preferred_element_type=jnp.float32, tiling=tiles, interpret=interpret)
    return run(x.swapaxes(0, 1), y, sizes)
