"""The one door through which activations meet weights."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.layers.axes import Named, logical_axes
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import contract, sides, trailing
from jaxlm.parallel.layout import Axes

Tree = TypeVar("Tree")


@runtime_checkable
class Weight(Protocol):
    """A matrix in any form: dense, adapted, quantized; forms nest freely.

    `axes` are its logical axes without the dimension that layers are stacked over, the first `inputs` of them
    those that a product contracts; both are static.
    """

    axes: Axes
    inputs: int

    @property
    def bias(self) -> Float[Array, "..."] | None:
        """Added to every product, or None."""
        ...

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """`einsum(spec, x, weight)` without the bias; see `products.contract` for the specs."""
        ...

    def dense(self) -> Float[Array, "..."]:
        """The matrix that `dot` multiplies with: for merging, export and look-ups."""
        ...

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each array of its own."""
        ...


@struct.dataclass
class Dense:
    """A plain matrix."""

    kernel: Float[Array, "..."]
    bias: Float[Array, "..."] | None
    axes: Axes = struct.field(pytree_node=False)
    inputs: int = struct.field(pytree_node=False, default=1)

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """`einsum(spec, x, kernel)` in the compute format."""
        return product(x, self.kernel, self.axes, spec, call)

    def dense(self) -> Float[Array, "..."]:
        """The kernel."""
        return self.kernel

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf; a bias has those of the outputs."""
        return {"kernel": self.axes, "bias": self.axes[self.inputs :]}


def product(x: Float[Array, "..."], kernel: Array, axes: Axes, spec: str, call: Call) -> Float[Array, "..."]:
    """`einsum(spec, x, kernel)` in x's dtype, whichever dimensions of the kernel are spread over devices."""
    contracted, outputs = sides(spec, axes)
    y = contract(x, call.layout.gather(kernel.astype(x.dtype), axes), spec)
    return call.layout.reduce(y, contracted, y.ndim - len(outputs) - 1)


def gathered(weight: Tree, call: Call) -> Tree:
    """A weight, or a module of some, whole on every device, matrices in the compute format.

    To be used with `call.layout.gathered()`.

    For what is used over and over in one step, such as the head: one gather, and one sum of gradients.
    """

    def whole(named: Named, leaf: Array) -> Array:
        matrix = len(named.axes) > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
        return call.layout.gather(leaf.astype(call.precision.compute) if matrix else leaf, named.axes)

    return jax.tree.map(whole, logical_axes(weight), weight)


def project(
    weight: Weight,
    x: Float[Array, "..."],
    spec: str,
    call: Call,
    *,
    key: RowKeys | None = None,
    adapters: Int[Array, "row"] | None = None,
) -> Float[Array, "..."]:
    """`einsum(spec, x, weight) + bias` in x's dtype: the only product of activations with weights."""
    with jax.named_scope("projection"):
        x = call.layout.barrier(x)
        y = weight.dot(x, spec, call, key=key, adapters=adapters)
        if weight.bias is None:
            return y
        bias = call.layout.gather(weight.bias.astype(y.dtype), weight.axes[weight.inputs :])
        return y + trailing(bias, y)


def look_up(weight: Weight, ids: Int[Array, "..."], call: Call) -> Float[Array, "... embed"]:
    """Rows of a [vocab, embed] weight, in the compute format.

    A weight that has `rows(ids)` is not made dense for them, where it lies whole on one device.
    """
    layout, (vocab, *_) = call.layout, weight.axes
    if hasattr(weight, "rows") and not layout.gathers and layout.parts(vocab) == 1:
        return weight.rows(ids).astype(call.precision.compute)
    table = layout.gather(weight.dense().astype(call.precision.compute), weight.axes)
    if layout.parts(vocab) == 1:
        return jnp.take(table, ids, axis=0)
    # A device has some of the rows, and zeros for the others.
    own = layout.enter(ids) - layout.index(vocab) * table.shape[0]
    own = jnp.where((own >= 0) & (own < table.shape[0]), own, table.shape[0])
    return layout.reduce(jnp.take(table, own, axis=0, mode="fill", fill_value=0), (vocab,))
