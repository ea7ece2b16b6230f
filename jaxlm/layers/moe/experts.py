"""The experts themselves: gated MLPs side by side, each on tokens of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call
from jaxlm.layers.mlp import activate
from jaxlm.layers.moe import slots as dispatch
from jaxlm.layers.moe.kernel import Kernel
from jaxlm.layers.moe.products import batched, ragged
from jaxlm.parallel.layout import Layout

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
    layout: Layout,
) -> tuple[Float[Array, "token embed"], Float[Array, ""]]:
    """sum over each token's choices of weight * expert(x), and how many choices were dropped.

    Of the tokens and experts at hand, tokens being rows of `row` one after the other: all of them, or within
    `layout.manual` a device's own, of which each then gets its own sums. The sum over a token's choices is in
    float32; what different devices add to it, in x's dtype. Raises UsageError where a capacity's group of tokens
    is not whole on a device.
    """
    match kind.dispatch:
        case config.Dropless():
            return _dropless(x, choices, weights, kernels, kind, layout)
        case config.Capacity():
            return _bounded(x, choices, weights, real, kernels, kind, row, layout)


def _dropless(
    x: Array, choices: Array, weights: Array, kernels: Kernels, kind: config.Moe, layout: Layout
) -> tuple[Array, Array]:
    """Every device takes all tokens of the n devices that share the experts, and computes what its experts add.

    Its buffer has n * token * min(k, experts / n) slots: all tokens may choose the experts of one device, and a
    token's choices are distinct. That is n times what an even load needs where k <= experts / n, in memory; no
    product is with empty slots. Sending tokens to where they are needed would have to make the same room.
    """
    held = kernels[0].shape[0]
    mine = layout.collect(choices, "experts", 0) - held * layout.index("experts")
    mine = jnp.where((mine >= 0) & (mine < held), mine, held)
    slots = dispatch.dropless(mine, held)
    product = functools.partial(ragged, sizes=slots.sizes, layout=layout)
    weighing = dispatch.weights_of(layout.collect(weights, "experts", 0), slots)
    y = _gated(dispatch.spread(layout.collect(x, "experts", 0), slots), weighing, kernels, kind, product)
    return layout.sum_scatter(dispatch.collect(y, slots).astype(x.dtype), "experts"), jnp.zeros(())


def _bounded(
    x: Array,
    choices: Array,
    weights: Array,
    real: Array,
    kernels: Kernels,
    kind: config.Moe,
    row: int,
    layout: Layout,
) -> tuple[Array, Array]:
    """Every device fills slots for all experts from its own groups of rows, and sends them to where those live."""
    rows = kind.dispatch.rows
    if layout.parts("pos") > 1 or (layout.parts("row") > 1 and x.shape[0] // row % rows):
        raise UsageError(
            f"dispatch {kind.dispatch}: {rows} whole rows share a capacity, and a device holds {x.shape[0] // row} "
            f"rows, each cut in {layout.parts('pos')}; use dropless, another number of rows, or another mesh"
        )
    taken = dispatch.limits(kind.dispatch.factor, rows * row, kind.top_k, kind.experts)
    slots = dispatch.capacity(choices, real, kind.experts, taken)
    sent = (dispatch.spread(x, slots), dispatch.weights_of(weights, slots))
    sent = (one.reshape(kind.experts, -1, one.shape[-1]) for one in sent)
    y = _gated(*(layout.exchange(one, "experts", split=0, join=1) for one in sent), kernels, kind, batched)
    y = layout.exchange(y, "experts", split=1, join=0).reshape(-1, x.shape[-1])
    dropped = real[:, None] & (slots.slots == slots.choices.size)
    return dispatch.collect(y, slots).astype(x.dtype), jnp.sum(dropped, dtype=jnp.float32)


def _gated(
    x: Array, weights: Array, kernels: Kernels, kind: config.Moe, product: Callable[[Array, Array], Array]
) -> Array:
    """Weighed before the last product, whose result the weights' gradient then does not need."""
    gate, up, down = kernels
    return product(activate(kind.activation, product(x, gate), product(x, up), weights), down)
