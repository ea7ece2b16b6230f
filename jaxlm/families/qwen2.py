"""Qwen2 and Qwen2.5 (arXiv:2407.10671, arXiv:2412.15115): LLaMA with biases for queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, RMSNorm
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama
from jaxlm.families.settings import Settings, agreed

MODEL_TYPES = ("qwen2",)
SIZES = {
    "0.5b": (24, 896, 14, 2, 4864, 151_936),
    "1.5b": (28, 1536, 12, 2, 8960, 151_936),
    "7b": (28, 3584, 28, 4, 18_944, 152_064),
    "72b": (80, 8192, 64, 8, 29_568, 152_064),
}
"""Size -> layers, features, heads, key and value heads, MLP features, tokens. The two smaller share embeddings."""
OTHER = "this model is no Qwen2: a LLaMA with biases for queries, keys and values, and no window"


def qwen2(size: str) -> Decoder:
    """One of `SIZES`: 0.5b has 494,032,768 parameters, 7b 7,615,616,512, 72b 72,706,203,648."""
    layers, embed, heads, kv_heads, width, vocab = SIZES[size]
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads, embed // heads, bias="qkv"), Gated(width)),
        position=Rope(theta=1e6),
        norm=RMSNorm(1e-6),
        head=Tied() if embed < 2048 else Untied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    told.expect("use_sliding_window", False)
    model = llama.decoder(told, llama.gated(told), bias="qkv")
    told.expect("layer_types", None, ["full_attention"] * model.layers)
    # A window of no layer.
    told.finish("max_position_embeddings", "max_window_layers", "sliding_window")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    named = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False}
    return agreed(read, llama.common(model, length, OTHER) | named, model, OTHER)


TABLE, DERIVED, OMITTED = llama.TABLE, llama.DERIVED, llama.OMITTED
