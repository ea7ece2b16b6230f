"""Qwen3's dense models (Yang et al. 2025, arXiv:2505.09388): LLaMA with norms of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, EachHead, Gated, RMSNorm
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("qwen3",)
OTHER = "this model is no Qwen3: a LLaMA with norms of each query and key head, and no window"

SIZES = {
    "0.6b": (28, 1024, 16, 3072, Tied()),
    "1.7b": (28, 2048, 16, 6144, Tied()),
    "4b": (36, 2560, 32, 9728, Tied()),
    "8b": (36, 4096, 32, 12_288, Untied()),
    "14b": (40, 5120, 40, 17_408, Untied()),
    "32b": (64, 5120, 64, 25_600, Untied()),
}
"""Size -> layers, features, heads, MLP features, head (table 1); 8 key and value heads of 128 features."""


def qwen3(size: str) -> Decoder:
    """One of `SIZES`: 0.6b has 596,049,920 parameters, 32b 32,762,123,264."""
    layers, embed, heads, width, head = SIZES[size]
    return Decoder(
        vocab=151_936,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads=8, head=128, qk_norm=EachHead()), Gated(width)),
        position=Rope(theta=1e6),
        norm=RMSNorm(1e-6),
        head=head,
    )


DEFAULTS = {"head_dim": 128, "num_key_value_heads": 32}
"""Where they differ from LLaMA's."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    bias = "all" if told.take("attention_bias", False) else "none"
    model = llama.decoder(told, llama.gated(told), bias=bias, qk_norm=EachHead())
    all_layers_whole(told, model)
    told.finish("max_position_embeddings")
    return model


def all_layers_whole(told: Settings, model: Decoder) -> None:
    """No layer has a window; settings of one then say nothing. Raises Failure where one has."""
    told.expect("use_sliding_window", False)
    told.expect("layer_types", None, ["full_attention"] * model.layers)
    for name in ("max_window_layers", "sliding_window"):
        told.take(name, None)


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = llama.common(model, length, OTHER) | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    return agreed(read, settings | {"attention_bias": model.block.attention.bias == "all"}, model, OTHER)


NORMS = tuple(
    entry(f"{llama.THERE}self_attn.{name[0]}_norm.weight", f"{llama.HERE}attention.{name}_norm.scale")
    for name in ("query", "key")
)
TABLE: Table = (*llama.TABLE, *NORMS)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
