"""GPT-2 (Radford et al. 2019): sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Learned
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Entry, Part, Table, entry

MODEL_TYPES = ("gpt2",)
SIZES = {"124m": (12, 768, 12), "355m": (24, 1024, 16), "774m": (36, 1280, 20), "1.5b": (48, 1600, 25)}
"""Size -> layers, features, heads."""


def gpt2(size: str) -> Decoder:
    """124m, 355m, 774m or 1.5b: 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters."""
    layers, embed, heads = SIZES[size]
    return _decoder(layers, embed, Attention(heads, heads, embed // heads, bias="all"), 4 * embed, 50_257, 1024)


def _decoder(
    layers: int, embed: int, attention: Attention, width: int, vocab: int, length: int, epsilon: float = 1e-5
) -> Decoder:
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(width, "gelu_tanh", bias="all")),
        position=Learned(length),
        norm=LayerNorm(epsilon),
        head=Tied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    told.expect("scale_attn_by_inverse_layer_idx", False)
    model = decoder(told, told.take("n_head"))
    told.finish("n_ctx", "reorder_and_upcast_attn")
    return model


def decoder(told: Settings, heads: int, kv_heads: int | None = None) -> Decoder:
    """What GPT-2 and its relatives have in common; as many key and value heads as heads where not told."""
    embed = told.take("n_embd")
    told.expect("activation_function", "gelu_new", "gelu_pytorch_tanh")
    told.expect("tie_word_embeddings", True)
    told.expect("scale_attn_weights", True)
    return _decoder(
        told.take("n_layer"),
        embed,
        Attention(heads, kv_heads or heads, embed // heads, bias="all"),
        told.take("n_inner", 4 * embed),
        told.take("vocab_size"),
        told.take("n_positions"),
        told.take("layer_norm_epsilon", 1e-5),
    )


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    named = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new"}
    return agreed(read, common(model, length, OTHER) | named, model, OTHER)


OTHER = "this model is no GPT-2: one kind of block, plain gelu, learned positions, LayerNorm, biases, a tied head"


def common(model: Decoder, length: int, other: str) -> dict[str, Any]:
    """The settings that GPT-2 and its relatives have in common. Raises UsageError with the text `other`."""
    block, table = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(table, Learned)):
        raise UsageError(other)
    if length > table.length:
        raise UsageError(f"rows of {length} tokens: this model has {table.length} positions")
    return {
        "vocab_size": model.vocab,
        "n_embd": model.embed,
        "n_layer": model.layers,
        "n_head": block.attention.heads,
        "n_inner": block.mlp.width,
        "n_positions": table.length,
        "layer_norm_epsilon": model.norm.epsilon,
        "tie_word_embeddings": True,
    }


HERE, THERE = "blocks.{layer}.", "transformer.h.{layer}."
QKV = ("query", "key", "value")
TABLE: Table = (
    entry("transformer.wte.weight", "embedding.kernel", "v e", "v e"),
    entry("transformer.wpe.weight", "position.table.kernel", "p e", "p e"),
    entry(f"{THERE}ln_1.weight", f"{HERE}attention_norm.scale"),
    entry(f"{THERE}ln_1.bias", f"{HERE}attention_norm.bias"),
    Entry(
        f"{THERE}attn.c_attn.weight", "e (+ h d)", tuple(Part(f"{HERE}attention.{n}.kernel", "e h d") for n in QKV)
    ),
    Entry(f"{THERE}attn.c_attn.bias", "(+ h d)", tuple(Part(f"{HERE}attention.{n}.bias", "h d") for n in QKV)),
    entry(f"{THERE}attn.c_proj.weight", f"{HERE}attention.out.kernel", "(h d) e", "h d e"),
    entry(f"{THERE}attn.c_proj.bias", f"{HERE}attention.out.bias"),
    entry(f"{THERE}ln_2.weight", f"{HERE}mlp_norm.scale"),
    entry(f"{THERE}ln_2.bias", f"{HERE}mlp_norm.bias"),
    entry(f"{THERE}mlp.c_fc.weight", f"{HERE}mlp.up.kernel", "e m", "e m"),
    entry(f"{THERE}mlp.c_fc.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}mlp.c_proj.weight", f"{HERE}mlp.down.kernel", "m e", "m e"),
    entry(f"{THERE}mlp.c_proj.bias", f"{HERE}mlp.down.bias"),
    entry("transformer.ln_f.weight", "norm.scale"),
    entry("transformer.ln_f.bias", "norm.bias"),
)
DERIVED = (r"lm_head\.weight", r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
"""Tensors of published files that follow from the others."""
OMITTED = "transformer."
"""Some files leave this out of all names."""
