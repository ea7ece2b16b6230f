"""Vector-based random matrix adaptation (Kopiczko et al. 2023, arXiv:2310.11454)."""

from __future__ import annotations

import dataclasses
from math import prod

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm import config
from jaxlm.adapters.over import Over, Shape, check, low_rank
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, product
from jaxlm.layers.random import at, dropout_of_inputs
from jaxlm.layers.random import key as site_key
from jaxlm.parallel.layout import Axes


@struct.dataclass
class Drawn:
    """The matrices that all weights share: the beginning of one with as many rows as the largest needs.

    Each row follows from the seed and its number, so that no array is kept.
    """

    seed: int = struct.field(pytree_node=False)
    rank: int = struct.field(pytree_node=False)
    widest: int = struct.field(pytree_node=False)
    """Inputs of the widest weight: PEFT draws by that, and every weight takes its part."""

    def a(self, inputs: int) -> Float[Array, "inputs rank"]:
        """Uniform numbers of variance 2 / widest (He et al. 2015)."""
        return _rows(self.seed, "vera.a", inputs, self.rank, (6 / self.widest) ** 0.5)

    def b(self, outputs: int) -> Float[Array, "rank outputs"]:
        """Uniform numbers of variance 2 / rank."""
        return _rows(self.seed, "vera.b", outputs, self.rank, (6 / self.rank) ** 0.5).T


@struct.dataclass
class Given:
    """Matrices that no seed gives here: those of a file."""

    shared_a: Float[Array, "*stacked inputs rank"]
    shared_b: Float[Array, "*stacked rank outputs"]

    def a(self, inputs: int) -> Float[Array, "*stacked inputs rank"]:
        """As given."""
        return self.shared_a

    def b(self, outputs: int) -> Float[Array, "*stacked rank outputs"]:
        """As given."""
        return self.shared_b

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf: whole on every device."""
        return {"shared_a": ("features", "rank"), "shared_b": ("rank", "features")}


def _rows(seed: int, name: str, rows: int, rank: int, bound: float) -> Float[Array, "rows rank"]:
    base = site_key(seed, 0, name)

    def one(number: Int[Array, ""]) -> Float[Array, "rank"]:
        return jax.random.uniform(jax.random.fold_in(base, number), (rank,), jnp.float32, -bound, bound)

    return jax.vmap(one)(jnp.arange(rows))


@struct.dataclass
class VeRA(Over):
    """W + A diag(inner) B diag(outer), of which the two vectors are trained (equation 2)."""

    base: Weight
    inner: Float[Array, "..."]
    outer: Float[Array, "..."]
    shared: Drawn | Given
    sizes: tuple[int, ...] = struct.field(pytree_node=False)
    """Of the whole matrix, of which a device may have a part."""
    dropout: float = struct.field(pytree_node=False, default=0.0)
    site: str = struct.field(pytree_node=False, default="")

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The base's product plus that through the random matrices. Raises UsageError as `LoRA` does."""
        check("VeRA", spec, adapters)
        axes, (left, right) = self.leaf_axes(), low_rank(spec, self.inputs)
        inputs, outputs = self.axes[: self.inputs], self.axes[self.inputs :]
        a, b = self._matrices()
        for dim, axis in enumerate(inputs):
            a = call.layout.own(a, axis, dim)
        for dim, axis in enumerate(outputs, start=1):
            b = call.layout.own(b, axis, dim)
        y = self.base.dot(x, spec, call, key=key)
        x = dropout_of_inputs(x, self.dropout, at(key, self.site), inputs, call.layout)
        # They are whole on every device: nothing is left to be gathered.
        drawn = dataclasses.replace(call, layout=call.layout.gathered())
        low = product(x, a, (*inputs, "rank"), left, drawn)
        low = low * trailing(call.layout.gather(self.inner, axes["inner"]), low)
        high = product(low, b, ("rank", *outputs), right, drawn)
        return y + high * trailing(call.layout.gather(self.outer, axes["outer"]), high)

    def _matrices(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """A and B with the dimensions of this weight, whole."""
        inputs, outputs = self.sizes[: self.inputs], self.sizes[self.inputs :]
        a, b = self.shared.a(prod(inputs)), self.shared.b(prod(outputs))
        return a.reshape(*a.shape[:-2], *inputs, -1), b.reshape(*b.shape[:-1], *outputs)

    def dense(self) -> Float[Array, "..."]:
        """The merged matrix: summed in float32, then in the base's format."""
        kernel = self.base.dense()
        inputs, outputs = prod(self.sizes[: self.inputs]), prod(self.sizes[self.inputs :])
        a, b = self.shared.a(inputs), self.shared.b(outputs)
        outer = self.outer.reshape(*self.inner.shape[:-1], outputs)

        def delta(a: Array, b: Array, inner: Array, outer: Array) -> Array:
            return ((a * inner[None]) @ (b * outer[None])).astype(jnp.float32)

        for _ in range(self.inner.ndim - 1):
            own = 0 if a.ndim > 2 else None
            delta = jax.vmap(delta, (own, own, 0, 0))
        added = delta(a, b, self.inner, outer).reshape(kernel.shape)
        return (kernel.astype(jnp.float32) + added).astype(kernel.dtype)

    def neutral(self) -> VeRA:
        """The same with an adapter that changes nothing."""
        return self.replace(inner=jnp.zeros_like(self.inner), outer=jnp.zeros_like(self.outer))

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"inner": ("rank",), "outer": self.axes[self.inputs :]}


def initial_vera(weight: Weight, kind: config.Vera, widest: int, name: str) -> VeRA:
    """Computes what the weight computes, since `outer` is zero. `widest` as in `Drawn`."""
    shape = Shape(weight)
    return VeRA(
        weight,
        jnp.full((*shape.stacked, kind.rank), kind.initial, shape.dtype),
        jnp.zeros((*shape.stacked, *shape.outputs), shape.dtype),
        Drawn(kind.seed, kind.rank, widest),
        (*shape.inputs, *shape.outputs),
        kind.dropout,
        name,
    )
