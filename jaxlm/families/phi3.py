"""Phi-3 and Phi-3.5 of short contexts (arXiv:2404.14219): LLaMA with queries, keys and values in one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, RMSNorm
from jaxlm.config.head import Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Entry, Part, Table

MODEL_TYPES = ("phi3",)
OTHER = "this model is no Phi-3: a LLaMA without biases"


def phi3_mini() -> Decoder:
    """Phi-3 mini, in rows of 4096 tokens: 3,821,079,552 parameters."""
    return Decoder(
        vocab=32_064,
        embed=3072,
        layers=32,
        block=Block(Attention(32, 32, 96, window=2047), Gated(8192)),
        position=Rope(),
        norm=RMSNorm(1e-5),
        head=Untied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    fraction = told.take("partial_rotary_factor", 1.0)
    model = llama.decoder(told, llama.gated(told), window=told.take("sliding_window", None), fraction=fraction)
    told.expect("attention_bias", False)
    told.finish("max_position_embeddings", "original_max_position_embeddings")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = llama.common(model, length, OTHER) | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    settings |= {"sliding_window": model.block.attention.window, "original_max_position_embeddings": length}
    settings["rope_parameters"] |= {"partial_rotary_factor": model.position.fraction}
    settings |= {"partial_rotary_factor": model.position.fraction, "pad_token_id": None}
    return agreed(read, settings, model, OTHER)


HERE, THERE = llama.HERE, llama.THERE
JOINED = (".q_proj.", ".k_proj.", ".v_proj.", ".gate_proj.", ".up_proj.")
QKV = tuple(Part(f"{HERE}attention.{name}.kernel", "e + d") for name in ("query", "key", "value"))
TABLE: Table = (
    *(one for one in llama.TABLE if not any(name in one.name for name in JOINED)),
    Entry(f"{THERE}self_attn.qkv_proj.weight", "(+ d) e", QKV),
    Entry(f"{THERE}mlp.gate_up_proj.weight", "(+ m) e", tuple(
        Part(f"{HERE}mlp.{name}.kernel", "e m") for name in ("gate", "up")
    )),
)  # fmt: skip
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
