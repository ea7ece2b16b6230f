"""Which weights of a layer read which activation, and what before them can take a scale of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxlm import config
from jaxlm.layers.attention.relative import Shaw
from jaxlm.layers.block import Block
from jaxlm.layers.mlp import Gated
from jaxlm.layers.moe.module import Moe
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights, weights_of

SHARED = {
    "attention.key": "attention.query",
    "attention.value": "attention.query",
    "mlp.gate": "mlp.up",
    "mlp.shared.gate": "mlp.up",
    "mlp.shared.up": "mlp.up",
    "mlp.shared.down": "mlp.down",
}
"""The tap of what a weight is applied to, where it is not of its own name."""
ORDER = ("attention", "cross", "mlp")
"""In which a block computes."""
PRE_NORMED = (config.PreNorm, config.Sandwich, config.Parallel, config.ParallelTwoNorms)
"""Wirings whose attention reads a norm that nothing else reads."""


@dataclass(frozen=True)
class Reader:
    """Weights that are applied to one activation.

    `weights` are all that read it, in the layer's names. `source` is the norm or the weight that makes it and can
    divide it by a scale for each feature, None where nothing can; `why` then says it. `branch` is the tap of the
    layer whose error a scale is chosen by.
    """

    tap: str
    weights: tuple[str, ...]
    source: str | None = None
    why: str = ""
    branch: str = ""


def in_order(layer: Any) -> dict[str, Weight]:
    """Every weight of a layer by its dotted name, in the order in which a block computes them."""
    place = {name: number for number, name in enumerate(ORDER)}
    return dict(sorted(weights_of(layer).items(), key=lambda item: place.get(item[0].split(".")[0], 0)))


def with_weights(layer: Any, new: dict[str, Weight]) -> Any:
    """The layer with some weights replaced."""
    return map_weights(lambda name, weight: new.get(name, weight), layer)


def by_tap(layer: Any) -> dict[str, tuple[str, ...]]:
    """The tap of each activation that weights are applied to, and their names, in the order of computation."""
    found: dict[str, list[str]] = {}
    for name in in_order(layer):
        found.setdefault(SHARED.get(name, name), []).append(name)
    return {tap: tuple(names) for tap, names in found.items()}


def readers(layer: Block) -> list[Reader]:
    """The activations of a block that scales can move into or out of.

    Where nothing before them can take a scale, `Reader.why` says so: the residual stream is read by the layers
    above too, mixed heads are sums over grouped values, most activations are not linear.
    """
    wiring, found = layer.wiring, by_tap(layer)
    query, up = found["attention.query"], found.get("mlp.up", ())
    attention, mlp = _attention_source(layer), _mlp_source(layer)
    if isinstance(wiring, config.Parallel):
        whole = mlp if isinstance(layer.mlp, Moe) else attention
        first = [Reader("attention.query", query + up, *whole, branch="residual")]
    else:
        first = [Reader("attention.query", query, *attention, branch="attention")]
    inner = [Reader("attention.out", ("attention.out",), *_out_source(layer))]
    last = [Reader("mlp.up", up, *mlp, branch="mlp")] if up and not isinstance(wiring, config.Parallel) else []
    if "mlp.down" in found:
        last.append(Reader("mlp.down", found["mlp.down"], *_down_source(layer)))
    return first + inner + last


Source = tuple[str | None, str]


def _attention_source(layer: Block) -> Source:
    if not isinstance(layer.wiring, PRE_NORMED):
        return None, f"attention reads the residual stream itself ({type(layer.wiring).__name__})"
    return "attention_norm", ""


def _mlp_source(layer: Block) -> Source:
    if isinstance(layer.mlp, Moe):
        return None, "a router and experts read the same norm, which are no weights that rounding knows"
    if not isinstance(layer.wiring, (*PRE_NORMED, config.NormedInput)):
        return None, f"the mlp reads the residual stream itself ({type(layer.wiring).__name__})"
    return "mlp_norm", ""


def _out_source(layer: Block) -> Source:
    kind = layer.attention.config
    if kind.heads != kind.kv_heads:
        return None, f"{kind.heads} heads share {kind.kv_heads} heads of values"
    if isinstance(layer.attention.position, Shaw) and layer.attention.position.values is not None:
        return None, "distances have values of their own"
    return "attention.value", ""


def _down_source(layer: Block) -> Source:
    mlp, prefix = layer.mlp, "mlp"
    if isinstance(mlp, Moe):
        mlp, prefix = mlp.shared, "mlp.shared"
    if isinstance(mlp, Gated) or mlp.config.activation == "relu":
        return f"{prefix}.up", ""
    return None, f"{mlp.config.activation} of a scaled number is not the scaled activation"
