"""Weight-decomposed low-rank adaptation (Liu et al. 2024, arXiv:2402.09353)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm import config
from jaxlm.adapters.lora import LoRA, outer, pair, scale_of
from jaxlm.adapters.over import Shape, check, spread
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight
from jaxlm.parallel.layout import Axes


@struct.dataclass
class DoRA(LoRA):
    """magnitude * (W + scale * a b) / |W + scale * a b|, lengths taken over the inputs of each output (equation 5).

    Lengths are constants for the gradient (section 4.3, equation 11).
    """

    magnitude: Float[Array, "..."] = struct.field(kw_only=True)
    length: Float[Array, "..."] | None = None
    """|W + scale * a b| where it is known, as of an adapter that is only used; None: computed in each call."""

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The sum of both products, each output times a number. Raises UsageError as `LoRA` does."""
        check("DoRA", spec, adapters)
        y = self.base.dot(x, spec, call, key=key) + self.added(x, spec, call, key)
        magnitude = call.layout.gather(self.magnitude.astype(jnp.float32), self.axes[self.inputs :])
        return y * trailing(magnitude / self._length(call), y)

    def _length(self, call: Call) -> Float[Array, "..."]:
        """Of each output that this device has, over all inputs."""
        layout, axes = call.layout, self.leaf_axes()
        if self.length is not None:
            return layout.gather(self.length, axes["length"])
        parts = (self.base.dense(), self.axes), (self.a, axes["a"]), (self.b, axes["b"])
        kernel, a, b = (layout.gather(jax.lax.stop_gradient(x).astype(jnp.float32), own) for x, own in parts)
        squares = self._squares(kernel + self.scale * outer(a, b, self.inputs))
        for axis in self.axes[: self.inputs]:
            squares = layout.sum(squares, axis)
        return jnp.sqrt(squares)

    def _squares(self, kernel: Float[Array, "..."]) -> Float[Array, "..."]:
        """Summed over the inputs, which are not the last dimensions here: those of a torch matrix are."""
        stacked = kernel.ndim - len(self.axes)
        return jnp.sum(jnp.square(kernel), axis=tuple(range(stacked, stacked + self.inputs)))

    def dense(self) -> Float[Array, "..."]:
        """The merged matrix: computed in float32, then in the base's format."""
        kernel = self.base.dense()
        whole = kernel.astype(jnp.float32) + self.scale * outer(self.a, self.b, self.inputs)
        length = jnp.sqrt(self._squares(whole)) if self.length is None else self.length
        return (whole * spread(self.magnitude / length, self.axes, self.inputs)).astype(kernel.dtype)

    def settled(self) -> DoRA:
        """The same with its lengths computed: for use, not for training."""
        whole = self.base.dense().astype(jnp.float32) + self.scale * outer(self.a, self.b, self.inputs)
        return self.replace(length=jnp.sqrt(self._squares(whole)))

    def neutral(self) -> DoRA:
        """The same with an adapter that changes nothing."""
        zero = self.replace(a=jnp.zeros_like(self.a), b=jnp.zeros_like(self.b)).settled()
        zero = zero.replace(magnitude=zero.length.astype(self.magnitude.dtype))
        return zero if self.length is not None else zero.replace(length=None)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        outputs = self.axes[self.inputs :]
        return LoRA.leaf_axes(self) | {"magnitude": outputs, "length": outputs}


def initial_dora(weight: Weight, kind: config.Dora, key: Key[Array, ""], name: str) -> DoRA:
    """Computes what the weight computes: magnitudes are the lengths of its outputs. Float32 magnitudes."""
    a, b = pair(Shape(weight), kind.rank, key)
    made = DoRA(weight, a, b, scale_of(kind), kind.dropout, name, magnitude=jnp.zeros(()))
    return made.replace(magnitude=jnp.sqrt(made._squares(weight.dense().astype(jnp.float32))))
