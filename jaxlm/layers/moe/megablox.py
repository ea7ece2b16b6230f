"""Products of experts on TPUs, by the kernels of MegaBlocks (arXiv:2211.15841) that jax has.

They skip what is no expert's, add up in float32 and return the operands' format. Other backends need not wait for
Pallas: it is imported when a kernel is called. `interpret` runs anywhere.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SLOTS = (512, 256, 128)
"""Slots that a kernel takes at once: the largest that divides their number."""
FEATURES, GRADIENT_FEATURES = 1024, 512
"""Inputs and outputs at once: as many as the default scoped memory of a TPU core holds twice, with their sum."""


def product(
    x: Float[Array, "slot _"],
    kernels: Float[Array, "experts _ _"],
    sizes: Int[Array, "experts"],
    *,
    transposed: bool,
    interpret: bool = False,
) -> Float[Array, "slot _"]:
    """x times each slot's own kernel, or its transpose; rows of no expert are not defined."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    outputs = kernels.shape[1 if transposed else 2]
    tiles = (_slots(x), min(FEATURES, x.shape[1]), min(FEATURES, outputs))
    return gmm(x, kernels, sizes, x.dtype, tiles, transpose_rhs=transposed, interpret=interpret)


def over_slots(
    x: Float[Array, "slot inputs"],
    y: Float[Array, "slot outputs"],
    sizes: Int[Array, "experts"],
    *,
    interpret: bool = False,
) -> Float[Array, "experts inputs outputs"]:
    """x^T y of each expert's own slots."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    tiles = (_slots(x), min(GRADIENT_FEATURES, x.shape[1]), min(GRADIENT_FEATURES, y.shape[1]))
    return tgmm(jnp.swapaxes(x, 0, 1), y, sizes, x.dtype, tiles, interpret=interpret)


def _slots(x: Array) -> int:
    return next(size for size in SLOTS if x.shape[0] % size == 0)
