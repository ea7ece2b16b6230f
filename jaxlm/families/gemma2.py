"""Gemma 2 (Rivière et al. 2024, arXiv:2408.00118): Gemma with sandwiches, soft caps and windows in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, Pattern, Sandwich
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.families import gemma, llama, rope
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("gemma2",)
OTHER = (
    "this model is no Gemma 2: a Gemma with sandwiched branches, every other layer with a window and the first "
    "with one, an even number of layers"
)

SIZES = {
    "2b": (26, 2304, 8, 4, 256, 9216, None),
    "9b": (42, 3584, 16, 8, 256, 14_336, None),
    "27b": (46, 4608, 32, 16, 128, 36_864, 144**-0.5),
}
"""Size -> layers, features, heads, key and value heads, head features, MLP features, scale (table 1)."""


def gemma2(size: str) -> Decoder:
    """2b, 9b or 27b: 2,614,341,888, 9,241,705,984 and 27,227,128,320 parameters."""
    layers, embed, heads, kv_heads, head, width, scale = SIZES[size]
    attention = Attention(heads, kv_heads, head, softcap=50.0, scale=scale)
    block = Block(attention, Gated(width, "gelu_tanh"), Sandwich())
    return gemma.architecture(layers, embed, in_turn(block, 4096), head=Tied(30.0))


def in_turn(block: Block, window: int) -> Pattern:
    """A block with a window, then one without."""
    local = dataclasses.replace(block, attention=dataclasses.replace(block.attention, window=window))
    return Pattern((local, block))


DEFAULTS = {"query_pre_attn_scalar": 256, "sliding_window": 4096, "rms_norm_eps": 1e-6}
"""What is meant where nothing is said."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    block = gemma.block(told, kv_heads=4, wiring=Sandwich())
    scalar, window = told.take("query_pre_attn_scalar"), told.take("sliding_window")
    scale = None if scalar == block.attention.head else scalar**-0.5
    cap, last = (_cap(told, settings, *one) for one in (("attn_logit", 50.0), ("final_logit", 30.0)))
    block = dataclasses.replace(block, attention=dataclasses.replace(block.attention, scale=scale, softcap=cap))
    layers = told.take("num_hidden_layers")
    if layers % 2:
        raise Failure(f"config.json: num_hidden_layers is {layers}, and only even numbers are known here")
    told.expect("layer_types", None, ["sliding_attention", "full_attention"] * (layers // 2))
    model = gemma.decoder(told, layers, in_turn(block, window), rope.read(told), Tied(last))
    told.finish("cache_implementation", "max_position_embeddings")
    return model


def _cap(told: Settings, settings: Mapping[str, Any], name: str, default: float) -> float | None:
    """A soft cap: one where nothing is said, and none where null is."""
    told.take(f"{name}_softcapping", None)
    return settings.get(f"{name}_softcapping", default)


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    if not isinstance(model.block, Pattern) or len(model.block.period) != 2:
        raise UsageError(OTHER)
    local, block = model.block.period
    if local.attention.window is None:
        raise UsageError(OTHER)
    attention = block.attention
    settings = gemma.common(model, block, length, OTHER) | {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention.head if attention.scale is None else round(attention.scale**-2),
        "sliding_window": local.attention.window,
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": model.head.softcap,
        "layer_types": ["sliding_attention", "full_attention"] * (model.layers // 2),
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = llama.HERE, llama.THERE
NORMS = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "attention_post_norm",
    "pre_feedforward_layernorm": "mlp_norm",
    "post_feedforward_layernorm": "mlp_post_norm",
}
TABLE: Table = (
    *(one for one in llama.TABLE if "layernorm" not in one.name),
    *(entry(f"{THERE}{theirs}.weight", f"{HERE}{ours}.scale") for theirs, ours in NORMS.items()),
)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
