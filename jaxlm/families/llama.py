"""LLaMA 1 (arXiv:2302.13971), 2 (arXiv:2307.09288) and 3 (arXiv:2407.21783), and Mistral (arXiv:2310.06825)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, Mlp, NoNorm, PreNorm, QkNorm, RMSNorm, Wiring
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Llama3, Rope
from jaxlm.families import rope
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("llama", "mistral")

LLAMA1 = {
    "7b": (32, 4096, 32, 32, 11_008),
    "13b": (40, 5120, 40, 40, 13_824),
    "33b": (60, 6656, 52, 52, 17_920),
    "65b": (80, 8192, 64, 64, 22_016),
}
LLAMA2 = {"7b": (32, 4096, 32, 32, 11_008), "13b": (40, 5120, 40, 40, 13_824), "70b": (80, 8192, 64, 8, 28_672)}
LLAMA3 = {"8b": (32, 4096, 32, 8, 14_336), "70b": (80, 8192, 64, 8, 28_672), "405b": (126, 16_384, 128, 8, 53_248)}
LLAMA32 = {"1b": (16, 2048, 32, 8, 8192), "3b": (28, 3072, 24, 8, 8192)}
"""Size -> layers, features, heads, key and value heads, MLP features."""

HEAD = 128
"""Features of a head, but for Llama 3.2 1B."""


def llama1(size: str) -> Decoder:
    """7b, 13b, 33b or 65b: 6,738,415,616, 13,015,864,320, 32,528,943,616 and 65,285,660,672 parameters."""
    return _decoder(*LLAMA1[size], vocab=32_000, theta=10_000.0, epsilon=1e-6)


def llama2(size: str) -> Decoder:
    """7b, 13b or 70b: 6,738,415,616, 13,015,864,320 and 68,976,648,192 parameters."""
    return _decoder(*LLAMA2[size], vocab=32_000, theta=10_000.0)


def llama3(size: str) -> Decoder:
    """8b, 70b or 405b: 8,030,261,248, 70,553,706,496 and 405,853,388,800 parameters."""
    return _decoder(*LLAMA3[size], vocab=128_256, theta=500_000.0)


def llama32(size: str) -> Decoder:
    """1b or 3b: 1,235,814,400 and 3,212,749,824 parameters, the head's being the embedding's."""
    layers, embed, heads, kv_heads, width = LLAMA32[size]
    return Decoder(
        vocab=128_256,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads, embed // heads), Gated(width)),
        position=Rope(theta=500_000.0, scaling=Llama3(factor=32.0, length=8192)),
        norm=RMSNorm(1e-5),
        head=Tied(),
    )


def mistral_7b() -> Decoder:
    """7,241,732,096 parameters; a query sees 4096 tokens (table 1)."""
    return _decoder(32, 4096, 32, 8, 14_336, vocab=32_000, theta=10_000.0, window=4096)


def _decoder(
    layers: int,
    embed: int,
    heads: int,
    kv_heads: int,
    width: int,
    *,
    vocab: int,
    theta: float,
    epsilon: float = 1e-5,
    window: int | None = None,
) -> Decoder:
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads, HEAD, window=window), Gated(width)),
        position=Rope(theta=theta),
        norm=RMSNorm(epsilon),
        head=Untied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    model = decoder(
        told,
        gated(told, "all" if told.take("mlp_bias", False) else "none"),
        bias="all" if told.take("attention_bias", False) else "none",
        # Mistral has a window where nothing is said; how long, differs among readers.
        window=told.take("sliding_window", *(() if settings.get("model_type") == "mistral" else (None,))),
    )
    told.finish("max_position_embeddings")
    return model


def gated(told: Settings, bias: str = "none") -> Gated:
    """The MLP of LLaMA and most of its relatives."""
    return Gated(told.take("intermediate_size"), bias=bias)


def decoder(
    told: Settings,
    mlp: Mlp,
    *,
    bias: str = "none",
    window: int | None = None,
    qk_norm: QkNorm = NoNorm(),
    wiring: Wiring = PreNorm(),
    fraction: float = 1.0,
) -> Decoder:
    """What LLaMA and its relatives have in common; `fraction` is the share of a head that is turned."""
    embed, heads = told.take("hidden_size"), told.take("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=told.take("num_key_value_heads", heads),
        head=told.take("head_dim", embed // heads),
        bias=bias,
        window=window,
        qk_norm=qk_norm,
    )
    told.expect("hidden_act", "silu")
    told.expect("attention_dropout", 0.0, 0)
    return Decoder(
        vocab=told.take("vocab_size"),
        embed=embed,
        layers=told.take("num_hidden_layers"),
        block=Block(attention, mlp, wiring),
        position=rope.read(told, fraction),
        norm=RMSNorm(told.take("rms_norm_eps", 1e-6)),
        head=Tied() if told.take("tie_word_embeddings", False) else Untied(),
    )


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other.

    With a window it is Mistral's.
    """
    settings, attention = common(model, length, OTHER), model.block.attention
    if attention.window is None:
        biases = {"attention_bias": attention.bias == "all", "mlp_bias": model.block.mlp.bias == "all"}
        settings |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | biases
    else:
        settings |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
        settings |= {"sliding_window": attention.window}
    return agreed(read, settings, model, OTHER)


OTHER = "this model is no LLaMA: one kind of block, gated silu, RoPE in halves, RMSNorm, no soft caps"


def common(model: Decoder, length: int, other: str, mlp: type[Mlp] = Gated) -> dict[str, Any]:
    """The settings that LLaMA and its relatives have in common. Raises UsageError with the text `other`."""
    block, turns = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, mlp) and isinstance(turns, Rope)):
        raise UsageError(other)
    return {
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "num_key_value_heads": block.attention.kv_heads,
        "head_dim": block.attention.head,
        "intermediate_size": block.mlp.width,
        "hidden_act": block.mlp.activation,
        "rms_norm_eps": model.norm.epsilon,
        "rope_parameters": rope.write(turns, length),
        "tie_word_embeddings": isinstance(model.head, Tied),
        "max_position_embeddings": length,
    }


HERE, THERE = "blocks.{layer}.", "model.layers.{layer}."
TABLE: Table = (
    entry("model.embed_tokens.weight", "embedding.kernel", "v e", "v e"),
    entry(f"{THERE}input_layernorm.weight", f"{HERE}attention_norm.scale"),
    *(
        one
        for name in ("query", "key", "value")
        for one in (
            entry(f"{THERE}self_attn.{name[0]}_proj.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d"),
            entry(f"{THERE}self_attn.{name[0]}_proj.bias", f"{HERE}attention.{name}.bias", "(h d)", "h d"),
        )
    ),
    entry(f"{THERE}self_attn.o_proj.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{THERE}self_attn.o_proj.bias", f"{HERE}attention.out.bias"),
    entry(f"{THERE}post_attention_layernorm.weight", f"{HERE}mlp_norm.scale"),
    *(
        one
        for name in ("gate", "up")
        for one in (
            entry(f"{THERE}mlp.{name}_proj.weight", f"{HERE}mlp.{name}.kernel", "m e", "e m"),
            entry(f"{THERE}mlp.{name}_proj.bias", f"{HERE}mlp.{name}.bias"),
        )
    ),
    entry(f"{THERE}mlp.down_proj.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.down_proj.bias", f"{HERE}mlp.down.bias"),
    entry("model.norm.weight", "norm.scale"),
    entry("lm_head.weight", "head.kernel", "v e", "e v"),
)
DERIVED = (r"lm_head\.weight", r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""Tensors of published files that follow from the others; the head only where it is tied."""
OMITTED = "model."
"""Some files leave this out of all names but the head's."""
