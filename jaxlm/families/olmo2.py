"""OLMo 2 (Walsh et al. 2024, arXiv:2501.00656): LLaMA with norms after its branches and of all heads together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import AllHeads, Attention, Block, Gated, ResPostNorm, RMSNorm
from jaxlm.config.head import Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama
from jaxlm.families.qwen3 import NORMS
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("olmo2",)
OTHER = "this model is no OLMo 2: a LLaMA with norms after its branches and of all heads together, and no window"

SIZES = {
    "1b": (16, 2048, 16, 16, 8192),
    "7b": (32, 4096, 32, 32, 11_008),
    "13b": (40, 5120, 40, 40, 13_824),
    "32b": (64, 5120, 40, 8, 27_648),
}
"""Size -> layers, features, heads, key and value heads, MLP features; heads have 128 features."""


def olmo2(size: str) -> Decoder:
    """One of `SIZES`: 7b has 7,298,617,344 parameters, 32b 32,234,279,936."""
    layers, embed, heads, kv_heads, width = SIZES[size]
    attention = Attention(heads, kv_heads, llama.HEAD, qk_norm=AllHeads())
    return Decoder(
        vocab=100_352,
        embed=embed,
        layers=layers,
        block=Block(attention, Gated(width), ResPostNorm()),
        position=Rope(theta=500_000.0),
        norm=RMSNorm(1e-6),
        head=Untied(),
    )


DEFAULTS = {"rms_norm_eps": 1e-5}
"""Where they differ from LLaMA's."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    bias = "all" if told.take("attention_bias", False) else "none"
    model = llama.decoder(told, llama.gated(told), bias=bias, qk_norm=AllHeads(), wiring=ResPostNorm())
    told.finish("max_position_embeddings")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = llama.common(model, length, OTHER) | {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}
    return agreed(read, settings | {"attention_bias": model.block.attention.bias == "all"}, model, OTHER)


HERE, THERE = llama.HERE, llama.THERE
TABLE: Table = (
    *(one for one in llama.TABLE if "layernorm" not in one.name),
    entry(f"{THERE}post_attention_layernorm.weight", f"{HERE}attention_norm.scale"),
    entry(f"{THERE}post_feedforward_layernorm.weight", f"{HERE}mlp_norm.scale"),
    *(entry(one.name, one.parts[0].name, "(h d)", "h d") for one in NORMS),
)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
