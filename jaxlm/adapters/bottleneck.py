"""Adapter modules (Houlsby et al. 2019, arXiv:1902.00751)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm import config
from jaxlm.adapters.over import Over, Shape, check
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.mlp import activate
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, product
from jaxlm.parallel.layout import Axes


@struct.dataclass
class Bottleneck(Over):
    """y + expand(activation(shrink(y))) of the base's product with its bias (figure 2, right).

    The base is what a branch ends with, [..., embed]; norms and the residual sum come after it.
    """

    base: Weight
    shrink: Float[Array, "..."]
    shrink_bias: Float[Array, "..."]
    expand: Float[Array, "..."]
    expand_bias: Float[Array, "..."]
    activation: str = struct.field(pytree_node=False)

    @property
    def bias(self) -> None:
        """None: the base's bias comes before the bottleneck, within `dot`."""
        return None

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The whole module. Raises UsageError as `LoRA` does."""
        check("a bottleneck", spec, adapters)
        axes = self.leaf_axes()
        y = self.base.dot(x, spec, call, key=key)
        if self.base.bias is not None:
            y = y + trailing(call.layout.gather(self.base.bias, self.axes[self.inputs :]), y)
        narrow = product(y, self.shrink, axes["shrink"], "rpe,eZ->rpZ", call)
        narrow = activate(self.activation, narrow + trailing(self.shrink_bias, narrow))
        wide = product(narrow, self.expand, axes["expand"], "rpZ,Ze->rpe", call)
        return y + wide + trailing(self.expand_bias, wide)

    def dense(self) -> Float[Array, "..."]:
        """Raises UsageError: it is no matrix."""
        raise UsageError("a bottleneck is no matrix, and cannot be merged into one: keep it beside the model")

    def neutral(self) -> Bottleneck:
        """The same with an adapter that changes nothing."""
        return self.replace(**{name: jnp.zeros_like(getattr(self, name)) for name in self.leaf_axes()})

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        (embed,) = self.axes[self.inputs :]
        return {
            "shrink": (embed, "rank"),
            "shrink_bias": ("rank",),
            "expand": ("rank", embed),
            "expand_bias": (embed,),
        }


def initial_bottleneck(weight: Weight, kind: config.Bottleneck, key: Key[Array, ""], name: str) -> Bottleneck:
    """Computes what the weight computes: what `expand` adds begins at zero (section 2.1: near it).

    Raises UsageError for a weight that no residual branch ends with.
    """
    shape = Shape(weight)
    if weight.axes[weight.inputs :] != ("embed",):
        raise UsageError(
            f"adapter.targets: a bottleneck follows what a branch adds to the residual stream, and {name} gives "
            f"{' x '.join(weight.axes[weight.inputs :])}; targets such as '(attention\\.out|down)$' fit"
        )
    embed = shape.outputs[0]
    shrink = jax.random.normal(key, (*shape.stacked, embed, kind.width), jnp.float32) * embed**-0.5

    def zeros(*sizes: int) -> Array:
        return jnp.zeros((*shape.stacked, *sizes), shape.dtype)

    parts = zeros(kind.width), zeros(kind.width, embed), zeros(embed)
    return Bottleneck(weight, shrink.astype(shape.dtype), *parts, kind.activation)
