"""Gemma 3's language models (Kamath et al. 2025, arXiv:2503.19786): Gemma 2, heads normalized and not capped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, EachHead, Gated, Pattern, Sandwich
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Interpolated, Rope, Unscaled
from jaxlm.families import gemma, gemma2, qwen3, rope
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table

MODEL_TYPES = ("gemma3_text",)
OTHER = (
    "this model is no Gemma 3: a Gemma with sandwiched branches, norms of each head, layers with a window and "
    "turns of their own and after some of them one without"
)

SIZES = {
    "1b": (26, 1152, 4, 1, 256, 6912, 512, None, 262_144, Unscaled()),
    "4b": (34, 2560, 8, 4, 256, 10_240, 1024, None, 262_208, Interpolated(8.0)),
    "12b": (48, 3840, 16, 8, 256, 15_360, 1024, None, 262_208, Interpolated(8.0)),
    "27b": (62, 5376, 32, 16, 128, 21_504, 1024, 168**-0.5, 262_208, Interpolated(8.0)),
}
"""Size -> layers, features, heads, key and value heads, head and MLP features, window, scale, tokens, scaling."""
EVERY = 6
"""One layer of so many has no window."""


def gemma3(size: str) -> Decoder:
    """1b, 4b, 12b or 27b: 999,885,952, 3,880,263,168, 11,766,034,176 and 27,009,346,304 parameters."""
    layers, embed, heads, kv_heads, head, width, window, scale, vocab, scaling = SIZES[size]
    attention = Attention(heads, kv_heads, head, qk_norm=EachHead(), scale=scale)
    block = Block(attention, Gated(width, "gelu_tanh"), Sandwich())
    pattern = in_turn(block, layers, EVERY, window, Rope())
    return gemma.architecture(layers, embed, pattern, vocab=vocab, position=Rope(1e6, scaling=scaling))


def in_turn(block: Block, layers: int, every: int, window: int, turns: Rope) -> Pattern:
    """Blocks with a window and turns of their own, and every so many one without."""
    local = _attending(block, window=window, position=turns)
    return Pattern((*(local,) * (every - 1), block), suffix=(local,) * (layers % every))


def _attending(block: Block, **changes: Any) -> Block:
    return dataclasses.replace(block, attention=dataclasses.replace(block.attention, **changes))


def kinds(layers: int, every: int) -> list[str]:
    """The `layer_types` of such layers."""
    return ["sliding_attention" if number % every else "full_attention" for number in range(1, layers + 1)]


DEFAULTS = {"query_pre_attn_scalar": 256, "sliding_window": 4096}
"""What is meant where nothing is said."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    block = gemma.block(told, kv_heads=4, wiring=Sandwich())
    scalar, window = told.take("query_pre_attn_scalar"), told.take("sliding_window")
    scale = None if scalar == block.attention.head else scalar**-0.5
    block = _attending(block, scale=scale, qk_norm=EachHead())
    turns, own = _turns(told)
    told.expect("attn_logit_softcapping", None)
    layers, every = told.take("num_hidden_layers"), told.take("sliding_window_pattern", EVERY)
    every = told.take("_sliding_window_pattern", every)
    types = settings.get("layer_types") or kinds(layers, every)
    if "full_attention" in types:
        every = types.index("full_attention") + 1
    told.expect("layer_types", None, kinds(layers, every))
    pattern = in_turn(block, layers, every, window, own)
    last = Tied(told.take("final_logit_softcapping", None))
    model = gemma.decoder(told, layers, pattern, turns, last)
    told.finish("cache_implementation", "max_position_embeddings")
    return model


def _turns(told: Settings) -> tuple[Rope, Rope]:
    """Turns of layers without a window, and of those with one."""
    both = dict(told.take("rope_parameters", None) or {})
    whole = {"rope_theta": told.take("rope_theta", 1e6), "rope_scaling": told.take("rope_scaling", None)}
    own = {"rope_theta": told.take("rope_local_base_freq", 1e4)}
    whole["rope_parameters"], own["rope_parameters"] = both.get("full_attention"), both.get("sliding_attention")
    return rope.read(Settings(whole)), rope.read(Settings(own))


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    if not isinstance(model.block, Pattern) or len(model.block.period) < 2:
        raise UsageError(OTHER)
    local, block = model.block.period[0].attention, model.block.period[-1]
    if local.window is None or not isinstance(local.position, Rope):
        raise UsageError(OTHER)
    attention, every = block.attention, len(model.block.period)
    settings = gemma.common(model, block, length, OTHER)
    own = rope.write(local.position, length)
    turns = {"full_attention": settings["rope_parameters"], "sliding_attention": own}
    settings |= {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention.head if attention.scale is None else round(attention.scale**-2),
        "sliding_window": local.window,
        "sliding_window_pattern": every,
        "layer_types": kinds(model.layers, every),
        "final_logit_softcapping": model.head.softcap,
        "rope_parameters": turns,
    }
    return agreed(read, settings, model, OTHER)


TABLE: Table = (*gemma2.TABLE, *qwen3.NORMS)
DERIVED, OMITTED = gemma2.DERIVED, gemma2.OMITTED
