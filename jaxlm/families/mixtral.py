"""Mixtral (Jiang et al. 2024, arXiv:2401.04088): LLaMA with a mixture of experts in the place of each MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Moe, RMSNorm
from jaxlm.config.head import Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("mixtral",)
OTHER = "this model is no Mixtral: a LLaMA without biases, all its MLPs dropless mixtures of silu experts"

SIZES = {"8x7b": (32, 4096, 32, 14_336), "8x22b": (56, 6144, 48, 16_384)}
"""Size -> layers, features, heads, features of an expert; 8 key and value heads, 2 experts of 8."""


def mixtral(size: str) -> Decoder:
    """8x7b or 8x22b: 46,702,792,704 and 140,620,634,112 parameters.

    A token meets 12,879,925,248 and 39,152,031,744 of them.
    """
    layers, embed, heads, width = SIZES[size]
    return Decoder(
        vocab=32_000,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads=8, head=llama.HEAD), Moe(experts=8, top_k=2, width=width)),
        position=Rope(theta=1e6),
        norm=RMSNorm(1e-5),
        head=Untied(),
    )


DEFAULTS = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6}
"""Where they differ from LLaMA's."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(DEFAULTS | dict(settings))
    mixture = Moe(told.take("num_local_experts"), told.take("num_experts_per_tok"), told.take("intermediate_size"))
    model = llama.decoder(told, mixture, window=told.take("sliding_window", None))
    # Of training only.
    told.finish("max_position_embeddings", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = llama.common(model, length, OTHER, Moe)
    settings |= {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
    mixture = model.block.mlp
    settings |= {"num_local_experts": mixture.experts, "num_experts_per_tok": mixture.top_k}
    return agreed(read, settings | {"sliding_window": model.block.attention.window}, model, OTHER)


HERE, THERE = f"{llama.HERE}mlp.", f"{llama.THERE}block_sparse_moe."
EXPERT = f"{THERE}experts.{{expert}}."
TABLE: Table = (
    *(one for one in llama.TABLE if ".mlp." not in one.name),
    entry(f"{THERE}gate.weight", f"{HERE}router.kernel", "x e", "e x"),
    entry(f"{EXPERT}w1.weight", f"{HERE}experts.gate.kernel", "m e", "e m"),
    entry(f"{EXPERT}w2.weight", f"{HERE}experts.down.kernel", "e m", "m e"),
    entry(f"{EXPERT}w3.weight", f"{HERE}experts.up.kernel", "m e", "e m"),
)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
