"""The feed-forward half of a block."""

from __future__ import annotations

import functools
from math import prod

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.initial import Initial
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.remat import named
from jaxlm.layers.taps import Report, tapped

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}


@functools.partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def activate(name: str, x: Float[Array, "... mlp"], *factors: Float[Array, "... _"]) -> Float[Array, "... mlp"]:
    """activation(x) times all factors, in float32 within; the backward pass starts from the arguments again."""
    y = ACTIVATIONS[name](x.astype(jnp.float32))
    return prod((factor.astype(jnp.float32) for factor in factors), start=y).astype(x.dtype)


@struct.dataclass
class Gated:
    """down(activation(gate(x)) * up(x)) (arXiv:2002.05202, equation 5)."""

    gate: Weight
    up: Weight
    down: Weight
    config: config.Gated = struct.field(pytree_node=False)

    def __call__(
        self,
        x: Float[Array, "row pos embed"],
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Array | None = None,
    ) -> tuple[Float[Array, "row pos embed"], Report]:
        """Each position by itself; the tap "mlp.down" is what is projected back."""
        more, x = {"key": key, "adapters": adapters}, call.layout.enter(x)
        gate = call.layout.row_major(named("gate", project(self.gate, x, "rpe,em->rpm", call, **more)))
        up = call.layout.row_major(named("up", project(self.up, x, "rpe,em->rpm", call, **more)))
        hidden = call.layout.constrain(activate(self.config.activation, gate, up), ("row", "pos", "mlp"))
        y = project(self.down, hidden, "rpm,me->rpe", call, **more)
        return y, Report(tapped(call, **{"mlp.down": hidden}))


@struct.dataclass
class Plain:
    """down(activation(up(x))) (Vaswani et al. 2017, equation 2)."""

    up: Weight
    down: Weight
    config: config.Plain = struct.field(pytree_node=False)

    def __call__(
        self,
        x: Float[Array, "row pos embed"],
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Array | None = None,
    ) -> tuple[Float[Array, "row pos embed"], Report]:
        """Each position by itself; the tap "mlp.down" is what is projected back."""
        more, x = {"key": key, "adapters": adapters}, call.layout.enter(x)
        up = call.layout.row_major(named("up", project(self.up, x, "rpe,em->rpm", call, **more)))
        hidden = call.layout.constrain(activate(self.config.activation, up), ("row", "pos", "mlp"))
        y = project(self.down, hidden, "rpm,me->rpe", call, **more)
        return y, Report(tapped(call, **{"mlp.down": hidden}))


Mlp = Gated | Plain


def initial_mlp(kind: config.Gated | config.Plain, embed: int, init: Initial, scale: float) -> Mlp:
    """Kernels of variance 1 / inputs; the last one times `scale`^2."""
    bias = kind.bias == "all"
    inward = ((embed, kind.width), ("embed", "mlp"))
    up = init.dense("up", *inward, bias=bias)
    down = init.dense("down", (kind.width, embed), ("mlp", "embed"), scale=scale, bias=bias)
    match kind:
        case config.Gated():
            return Gated(init.dense("gate", *inward, bias=bias), up, down, kind)
        case config.Plain():
            return Plain(up, down, kind)
