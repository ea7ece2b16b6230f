"""A mixture of experts in the place of a block's MLP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import jax
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.contracts import Call, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.mlp import Gated, initial_mlp
from jaxlm.layers.moe.balance import load_balance, router_z
from jaxlm.layers.moe.experts import Experts, mix
from jaxlm.layers.moe.kernel import Kernel
from jaxlm.layers.moe.router import route
from jaxlm.layers.random import at
from jaxlm.layers.taps import Report, tapped

Tree = TypeVar("Tree")
Hidden = Float[Array, "row pos embed"]


@struct.dataclass
class Moe:
    """Router, experts, and the MLP that all tokens share."""

    router: Kernel
    experts: Experts
    shared: Gated | None
    config: config.Moe = struct.field(pytree_node=False)

    def __call__(
        self,
        x: Hidden,
        tokens: Tokens,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Array | None = None,
    ) -> tuple[Hidden, Report]:
        """Each token through its experts, and the terms of the loss; padding goes through none and is in no term.

        Terms are sums over the layer's tokens: `load_balance` over documents (or 1 of the whole batch), `router_z`
        over tokens, `dropped` the share of its choices that each token lost, over tokens. The tap `router` is the
        probabilities of all experts, [row, pos, experts].
        """
        kind = self.config
        with jax.named_scope("moe"):
            routing = route(self.router, x, tokens.segments, kind, call)
            joined = call.layout.enter((x, routing.choices, routing.weights, routing.real))
            shape, flat = joined[0].shape, (one.reshape(-1, *one.shape[2:]) for one in joined)
            y, dropped = mix(*flat, self.experts.gathered(x.dtype, call), kind, shape[1], call.layout)
            y = call.layout.reduce(y.reshape(shape), ("mlp",))
            terms = {
                "load_balance": load_balance(routing, tokens.segments, kind.balance.over, call.layout),
                "router_z": router_z(routing),
                # each of the joined devices has counted all
                "dropped": dropped / (kind.top_k * call.layout.parts("mlp")),
            }
        taps: dict[str, Array] = {}
        if self.shared is not None:
            more, report = self.shared(x, call, key=at(key, "shared"), adapters=adapters)
            y, taps = y + more, report.taps
        return y, Report(taps | tapped(call, router=routing.probabilities), terms)


def apart(model: Tree) -> tuple[Tree, int]:
    """The model with mixtures that drop no token where several rows would share a capacity, and how many share it.

    1 where none do, and the model is as it was: of each row it then says what it would say of the row alone.
    """
    found = [1]

    def one(part: Any) -> Any:
        if not (isinstance(part, Moe) and isinstance(part.config.dispatch, config.Capacity)):
            return part
        found.append(part.config.dispatch.rows)
        alone = replace(part.config, dispatch=config.Dropless())
        return part.replace(config=alone) if part.config.dispatch.rows > 1 else part

    return jax.tree.map(one, model, is_leaf=lambda part: isinstance(part, Moe)), max(found)


def initial_moe(kind: config.Moe, embed: int, init: Initial, scale: float) -> Moe:
    """Kernels of variance 1 / inputs; the last ones times `scale`^2.

    The router's outputs are whole on every device, also where experts are not: all choose among all.
    """

    def kernel(name: str, shape: tuple[int, ...], axes: tuple[str, ...], std: float) -> Kernel:
        return Kernel(init.dense(name, shape, axes, std=std).kernel, axes)

    inward = (kind.experts, embed, kind.width), ("experts", "embed", "mlp"), embed**-0.5
    outward = (kind.experts, kind.width, embed), ("experts", "mlp", "embed"), scale * kind.width**-0.5
    return Moe(
        router=kernel("router", (embed, kind.experts), ("embed", "features"), embed**-0.5),
        experts=Experts(
            gate=kernel("experts.gate", *inward),
            up=kernel("experts.up", *inward),
            down=kernel("experts.down", *outward),
        ),
        shared=_shared(kind, embed, init, scale) if kind.shared else None,
        config=kind,
    )


def _shared(kind: config.Moe, embed: int, init: Initial, scale: float) -> Gated:
    return initial_mlp(config.Gated(kind.shared, kind.activation), embed, init.at("shared"), scale)
