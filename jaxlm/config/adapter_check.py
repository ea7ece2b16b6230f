"""What is wrong with an adapter of a model, as far as configs tell; names of weights are for `jaxlm.adapters`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaxlm.config.adapter import (
    Adapter,
    Bottleneck,
    Dora,
    Lora,
    NoAdapter,
    PrefixTuning,
    PromptTuning,
    Vera,
)
from jaxlm.config.block import Moe, blocks
from jaxlm.config.model import Decoder, Model
from jaxlm.config.paths import option_name
from jaxlm.config.position import Disentangled, Learned, Shaw, TransformerXl
from jaxlm.config.recurrent import Recurrent


def adapter_problems(adapter: Adapter, model: Model, length: int = 0) -> Iterator[str]:
    """One message for each problem of an adapter on a model that reads rows of `length` tokens."""
    if isinstance(adapter, NoAdapter):
        return
    named = option_name(type(model))
    yield from _numbers(adapter)
    for field in ("targets", "inputs", "also"):
        try:
            re.compile(getattr(adapter, field, ""))
        except re.error as error:
            yield f"adapter.{field}={getattr(adapter, field)!r} is no regular expression: {error}"
    match adapter:
        case Bottleneck() if isinstance(model, Recurrent):
            yield f"adapter is bottleneck: {named} has gates after its branches; use lora"
        case Lora(dropout=rate) | Dora(dropout=rate) | Vera(dropout=rate) if rate and isinstance(model, Recurrent):
            yield f"adapter.dropout={rate}: the projections of {named} are given no keys to drop by; use 0"
        case PrefixTuning() | PromptTuning() if isinstance(model, Recurrent):
            yield f"adapter: {named} has no attention that keys could be added to; use lora"
        case PrefixTuning() | PromptTuning():
            yield from _virtual(adapter, model, named, length)


def _numbers(adapter: Adapter) -> Iterator[str]:
    for field in ("rank", "width", "length"):
        if (value := getattr(adapter, field, 1)) < 1:
            yield f"adapter.{field}={value}: it is at least 1"
    if not 0.0 <= (rate := getattr(adapter, "dropout", 0.0)) < 1.0:
        yield f"adapter.dropout={rate}: it is a probability below 1"


def _virtual(adapter: PrefixTuning | PromptTuning, model: Model, named: str, length: int) -> Iterator[str]:
    layers = getattr(model, "layers", 0) or model.decoder_layers
    found = blocks(model.block, layers)
    for position in {type(model.position): 0, **dict.fromkeys(type(block.attention.position) for block in found)}:
        if position in (Shaw, TransformerXl, Disentangled):
            yield f"adapter: {position.__name__} has vectors of distances, and virtual tokens none; use lora"
    if isinstance(adapter, PrefixTuning):
        return
    if not isinstance(model, Decoder):
        yield (
            f"adapter is prompt_tuning: in {named} a prompt would see the documents it stands before, and not be "
            "the same for all of a row; use prefix_tuning"
        )
        return
    if model.ahead:
        yield f"adapter is prompt_tuning: heads of model.ahead={model.ahead} begin without it; use lora"
    if any(isinstance(block.mlp, Moe) for block in found):
        yield "adapter is prompt_tuning: a router would count its tokens; use prefix_tuning"
    room = model.position.length if isinstance(model.position, Learned) else None
    if room is not None and length + adapter.length > room:
        yield (
            f"adapter.length={adapter.length}: with rows of {length} tokens that is more than the {room} positions "
            "of model.position; use shorter rows, or prefix_tuning, which needs none"
        )
