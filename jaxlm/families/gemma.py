"""Gemma (Mesnard et al. 2024, arXiv:2403.08295): sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, Pattern, PreNorm, Wiring, ZeroCentered
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder, Scaled
from jaxlm.config.position import Rope
from jaxlm.families import llama, rope
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table

MODEL_TYPES = ("gemma",)
OTHER = (
    "this model is no Gemma: one kind of block, gated tanh gelu, RoPE in halves, zero-centered norms, scaled "
    "tokens, a tied head, no soft caps"
)

SIZES = {"2b": (18, 2048, 8, 1, 16_384), "7b": (28, 3072, 16, 16, 24_576)}
"""Size -> layers, features, heads, key and value heads, MLP features; heads have 256 features (table 1)."""


def gemma(size: str) -> Decoder:
    """2b or 7b: 2,506,172,416 and 8,537,680,896 parameters."""
    layers, embed, heads, kv_heads, width = SIZES[size]
    return architecture(layers, embed, Block(Attention(heads, kv_heads, 256), Gated(width, "gelu_tanh")))


def architecture(
    layers: int,
    embed: int,
    block: Block | Pattern,
    *,
    vocab: int = 256_000,
    position: Rope = Rope(),
    epsilon: float = 1e-6,
    head: Tied = Tied(),
) -> Decoder:
    """What all Gemmas have in common."""
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=block,
        position=position,
        norm=ZeroCentered(epsilon),
        head=head,
        embedding=Scaled(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    model = decoder(told, told.take("num_hidden_layers"), block(told, kv_heads=16), rope.read(told))
    told.finish("max_position_embeddings")
    return model


def block(told: Settings, *, kv_heads: int, wiring: Wiring = PreNorm()) -> Block:
    """A block without window and soft cap; `kv_heads` and 256 features a head where nothing is told."""
    attention = Attention(
        heads=told.take("num_attention_heads"),
        kv_heads=told.take("num_key_value_heads", kv_heads),
        head=told.take("head_dim", 256),
        bias="all" if told.take("attention_bias", False) else "none",
    )
    # Older files say gelu and have always meant its approximation by tanh.
    told.expect("hidden_act", "gelu", "gelu_pytorch_tanh")
    told.expect("hidden_activation", None, "gelu_pytorch_tanh")
    return Block(attention, Gated(told.take("intermediate_size"), "gelu_tanh"), wiring)


def decoder(told: Settings, layers: int, block: Block | Pattern, position: Rope, head: Tied = Tied()) -> Decoder:
    """A model of these layers. Raises Failure for what no Gemma has."""
    told.expect("attention_dropout", 0.0, 0)
    told.expect("tie_word_embeddings", True)
    told.expect("use_bidirectional_attention", None, False)
    return architecture(
        layers,
        told.take("hidden_size"),
        block,
        vocab=told.take("vocab_size"),
        position=position,
        epsilon=told.take("rms_norm_eps", 1e-6),
        head=head,
    )


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    if not isinstance(model.block, Block):
        raise UsageError(OTHER)
    named = {"model_type": "gemma", "architectures": ["GemmaForCausalLM"], "hidden_act": "gelu_pytorch_tanh"}
    return agreed(read, common(model, model.block, length, OTHER) | named, model, OTHER)


def common(model: Decoder, block: Block, length: int, other: str) -> dict[str, Any]:
    """The settings that all Gemmas have in common. Raises UsageError with the text `other`."""
    turns = model.position
    if not (isinstance(block.mlp, Gated) and isinstance(turns, Rope)):
        raise UsageError(other)
    return {
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "num_key_value_heads": block.attention.kv_heads,
        "head_dim": block.attention.head,
        "attention_bias": block.attention.bias == "all",
        "intermediate_size": block.mlp.width,
        "rms_norm_eps": model.norm.epsilon,
        "rope_parameters": rope.write(turns, length),
        "tie_word_embeddings": True,
        "max_position_embeddings": length,
    }


TABLE: Table = llama.TABLE
DERIVED, OMITTED = llama.DERIVED, llama.OMITTED
