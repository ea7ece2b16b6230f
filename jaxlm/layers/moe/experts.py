"""The experts themselves: gated MLPs side by side, each on tokens of its own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxlm import config
from jaxlm.layers.contracts import Call
from jaxlm.layers.mlp import activate
from jaxlm.layers.moe import slots as dispatch
from jaxlm.layers.moe.kernel import Kernel
from jaxlm.layers.products import einsum32

Kernels = tuple[
    Float[Array, "experts embed mlp"], Float[Array, "experts embed mlp"], Float[Array, "experts mlp embed"]
]


@struct.dataclass
class Experts:
    """down(activation(gate(x)) * up(x)) for each expert (arXiv:2002.05202, equation 5)."""

    gate: Kernel
    up: Kernel
    down: Kernel

    def gathered(self, dtype: str | jnp.dtype, call: Call) -> Kernels:
        """The three kernels as they are used."""
        return tuple(one.gathered(dtype, call) for one in (self.gate, self.up, self.down))


def mix(
    x: Float[Array, "token embed"],
    choices: Int[Array, "token k"],
    weights: Float[Array, "token k"],
    real: Bool[Array, "token"],
    kernels: Kernels,
    kind: config.Moe,
    row: int,
) -> tuple[Float[Array, "token embed"], Float[Array, ""]]:
    """sum over each token's choices of weight * expert(x), and how many choices were dropped.

    A pure function of one device's tokens, rows of `row` tokens one after the other, and of the experts it holds;
    choices of `experts` or more are computed elsewhere or nowhere. Sums over choices are in float32.

    Dropless, the buffer has token * k slots on one device. On n devices that hold experts / n each, all tokens of
    all of them may choose the experts of one: without dropping, its buffer must have room for n * token *
    min(k, experts / n) slots, as a token's choices are distinct; n times what an even load needs when
    k <= experts / n.
    """
    experts = kernels[0].shape[0]
    match kind.dispatch:
        case config.Dropless():
            slots = dispatch.dropless(choices, experts)
            product = functools.partial(ragged, sizes=slots.sizes)
        case config.Capacity():
            taken = dispatch.limits(kind.dispatch.factor, kind.dispatch.rows * row, kind.top_k, kind.experts)
            slots = dispatch.capacity(choices, real, experts, taken)
            product = batched
    gate, up, down = kernels
    spread = dispatch.spread(x, slots)
    hidden = activate(kind.activation, product(spread, gate), product(spread, up))
    y = dispatch.collect(product(hidden, down), weights, slots).astype(x.dtype)
    dropped = (choices < experts) & (slots.slots == slots.choices.size)
    return y, jnp.sum(dropped, dtype=jnp.float32)


def batched(
    x: Float[Array, "slot inputs"], kernels: Float[Array, "experts inputs outputs"]
) -> Float[Array, "slot outputs"]:
    """Each expert's product with its own slots, of which all have the same number."""
    each = x.reshape(kernels.shape[0], -1, x.shape[-1])
    y = einsum32("xsi,xio->xso", each, kernels).astype(x.dtype)
    return y.reshape(x.shape[0], -1)


def ragged(
    x: Float[Array, "slot inputs"], kernels: Float[Array, "experts inputs outputs"], sizes: Int[Array, "experts"]
) -> Float[Array, "slot outputs"]:
    """The product of each expert with its own slots, `sizes` of them, one expert after the other.

    Summed in float32. In formats below float32 the backward products take cotangents of that format, as in
    `products.contract`.
    """
    return _ragged(x, kernels, sizes)


@jax.custom_vjp
def _ragged(x: Array, kernels: Array, sizes: Array) -> Array:
    return jax.lax.ragged_dot(x, kernels, sizes, preferred_element_type=jnp.float32).astype(x.dtype)


def _ragged_forward(x: Array, kernels: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _ragged(x, kernels, sizes), (x, kernels, sizes)


def _ragged_backward(saved: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    x, kernels, sizes = saved
    dx = _ragged(cotangent, kernels.swapaxes(1, 2), sizes)
    dw = jax.lax.ragged_dot_general(x, cotangent, sizes, OVER_SLOTS, preferred_element_type=jnp.float32)
    return dx, dw.astype(kernels.dtype), None


OVER_SLOTS = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
)
"""[slot, inputs], [slot, outputs] -> [experts, inputs, outputs]: each expert sums over its own slots."""

_ragged.defvjp(_ragged_forward, _ragged_backward)
