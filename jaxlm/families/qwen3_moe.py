"""Qwen3's mixtures of experts (Yang et al. 2025, arXiv:2505.09388)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, EachHead, Moe, RMSNorm
from jaxlm.config.head import Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama, qwen3
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("qwen3_moe",)
OTHER = "this model is no Qwen3-MoE: a Qwen3, all its MLPs dropless mixtures of silu experts"

SIZES = {"30b-a3b": (48, 2048, 32, 768), "235b-a22b": (94, 4096, 64, 1536)}
"""Size -> layers, features, heads, features of an expert; 4 key and value heads, 8 experts of 128 (table 2)."""


def qwen3_moe(size: str) -> Decoder:
    """30b-a3b or 235b-a22b: 30,532,122,624 and 235,093,634,560 parameters."""
    layers, embed, heads, width = SIZES[size]
    attention = Attention(heads, kv_heads=4, head=128, qk_norm=EachHead())
    return Decoder(
        vocab=151_936,
        embed=embed,
        layers=layers,
        block=Block(attention, Moe(experts=128, top_k=8, width=width)),
        position=Rope(theta=1e6),
        norm=RMSNorm(1e-6),
        head=Untied(),
    )


DEFAULTS = {"num_key_value_heads": 4, "norm_topk_prob": False}
"""Where they differ from LLaMA's."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    mixture = Moe(
        experts=told.first("num_experts", "num_local_experts"),
        top_k=told.take("num_experts_per_tok"),
        width=told.take("moe_intermediate_size"),
        weights="renormalized" if told.take("norm_topk_prob") else "scores",
    )
    bias = "all" if told.take("attention_bias", False) else "none"
    model = llama.decoder(told, mixture, bias=bias, qk_norm=EachHead())
    qwen3.all_layers_whole(told, model)
    told.expect("decoder_sparse_step", 1)
    told.expect("mlp_only_layers", None, [])
    # Of training, and the width of layers that are no mixtures.
    told.finish("intermediate_size", "max_position_embeddings", "output_router_logits", "router_aux_loss_coef")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = llama.common(model, length, OTHER, Moe)
    mixture = model.block.mlp
    settings |= {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": model.block.attention.bias == "all",
        "moe_intermediate_size": mixture.width,
        "num_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "norm_topk_prob": mixture.weights == "renormalized",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = f"{llama.HERE}mlp.", f"{llama.THERE}mlp."
EXPERT = f"{THERE}experts.{{expert}}."
TABLE: Table = (
    *(one for one in qwen3.TABLE if ".mlp." not in one.name),
    entry(f"{THERE}gate.weight", f"{HERE}router.kernel", "x e", "e x"),
    entry(f"{EXPERT}gate_proj.weight", f"{HERE}experts.gate.kernel", "m e", "e m"),
    entry(f"{EXPERT}up_proj.weight", f"{HERE}experts.up.kernel", "m e", "e m"),
    entry(f"{EXPERT}down_proj.weight", f"{HERE}experts.down.kernel", "e m", "m e"),
)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
