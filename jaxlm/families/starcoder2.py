"""StarCoder 2 (Lozhkov et al. 2024, arXiv:2402.19173): LLaMA's attention, GPT-2's MLP and norms, and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import llama, rope
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("starcoder2",)
OTHER = "this model is no StarCoder 2: one kind of block, a plain MLP, RoPE in halves, LayerNorm, biases everywhere"
SIZES = {
    "3b": (30, 3072, 24, 2, 999_999.4420358813),
    "7b": (32, 4608, 36, 4, 1_000_000.0),
    "15b": (40, 6144, 48, 4, 100_000.0),
}
"""Size -> layers, features, heads, key and value heads, base of the wavelengths."""


def starcoder2(size: str) -> Decoder:
    """One of `SIZES`: 3b has 3,030,371,328 parameters, 7b 7,173,923,840, 15b 15,957,889,024."""
    layers, embed, heads, kv_heads, theta = SIZES[size]
    return Decoder(
        vocab=49_152,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads, 128, "all", window=4096), Plain(4 * embed, bias="all")),
        position=Rope(theta),
        norm=LayerNorm(),
        head=Untied() if size == "15b" else Tied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    embed, heads = told.take("hidden_size"), told.take("num_attention_heads")
    bias = "all" if told.take("use_bias", True) else "none"
    attention = Attention(
        heads=heads,
        kv_heads=told.take("num_key_value_heads", 2),
        head=told.take("head_dim", embed // heads),
        bias=bias,
        window=told.take("sliding_window", None),
    )
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh")
    model = Decoder(
        vocab=told.take("vocab_size"),
        embed=embed,
        layers=told.take("num_hidden_layers"),
        block=Block(attention, Plain(told.take("intermediate_size"), activation, bias=bias)),
        position=rope.read(told),
        norm=LayerNorm(told.take("norm_epsilon", 1e-5)),
        head=Tied() if told.take("tie_word_embeddings", True) else Untied(),
    )
    told.finish("attention_dropout", "embedding_dropout", "max_position_embeddings", "residual_dropout")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    if not isinstance(model.norm, LayerNorm):
        raise UsageError(OTHER)
    settings = llama.common(model, length, OTHER, Plain)
    attention = model.block.attention
    settings |= {"model_type": "starcoder2", "architectures": ["Starcoder2ForCausalLM"]}
    settings |= {"use_bias": attention.bias == "all", "sliding_window": attention.window}
    settings |= {"hidden_act": named(model.block.mlp.activation), "norm_epsilon": settings.pop("rms_norm_eps")}
    return agreed(read, settings, model, OTHER)


HERE, THERE = llama.HERE, llama.THERE
GATED = (".gate_proj.", ".up_proj.", ".down_proj.", "norm.")
TABLE: Table = (
    *(one for one in llama.TABLE if not any(name in one.name for name in GATED)),
    *norms(f"{THERE}input_layernorm", f"{HERE}attention_norm"),
    *norms(f"{THERE}post_attention_layernorm", f"{HERE}mlp_norm"),
    *norms("model.norm", "norm"),
    entry(f"{THERE}mlp.c_fc.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    entry(f"{THERE}mlp.c_fc.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}mlp.c_proj.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.c_proj.bias", f"{HERE}mlp.down.bias"),
)
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
