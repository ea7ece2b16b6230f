"""Qwen2 and Qwen2.5 (arXiv:2407.10671, arXiv:2412.15115): LLaMA with biases for queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.model import Decoder
from jaxlm.families import llama
from jaxlm.families.settings import Settings, agreed

MODEL_TYPES = ("qwen2",)
OTHER = "this model is no Qwen2: a LLaMA with biases for queries, keys and values, and no window"


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
