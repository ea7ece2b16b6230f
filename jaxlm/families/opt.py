"""OPT (Zhang et al. 2022, arXiv:2205.01068): sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Learned
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("opt",)
OTHER = "this model is no OPT: one kind of block, plain relu, learned positions after 2 others, LayerNorm, biases"
OFFSET = 2
"""Rows of the table before that of the first position."""

SIZES = {
    "125m": (12, 768, 12),
    "1.3b": (24, 2048, 32),
    "2.7b": (32, 2560, 32),
    "6.7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "66b": (64, 9216, 72),
    "175b": (96, 12_288, 96),
}
"""Size -> layers, features, heads (table 1). The 350m has its norms after the branches and narrower tokens."""


def opt(size: str) -> Decoder:
    """One of `SIZES`, in rows of 2048 tokens; 125m has 125,239,296 parameters, 175b 174,604,468,224."""
    layers, embed, heads = SIZES[size]
    return _decoder(layers, embed, heads, 4 * embed, vocab=50_272, length=2048)


def _decoder(
    layers: int, embed: int, heads: int, width: int, *, vocab: int, length: int, head: Tied | Untied = Tied()
) -> Decoder:
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, heads, embed // heads, bias="all"), Plain(width, "relu", bias="all")),
        position=Learned(length, OFFSET),
        norm=LayerNorm(),
        head=head,
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    embed = told.take("hidden_size")
    told.expect("word_embed_proj_dim", embed, None)
    told.expect("do_layer_norm_before", True)
    told.expect("_remove_final_layer_norm", False)
    told.expect("layer_norm_elementwise_affine", True)
    told.expect("enable_bias", True)
    told.expect("activation_function", "relu")
    model = _decoder(
        told.take("num_hidden_layers"),
        embed,
        told.take("num_attention_heads"),
        told.take("ffn_dim"),
        vocab=told.take("vocab_size"),
        length=told.take("max_position_embeddings"),
        head=Tied() if told.take("tie_word_embeddings", True) else Untied(),
    )
    # Of training only, and a text to put before prompts.
    told.finish("activation_dropout", "attention_dropout", "dropout", "init_std", "layerdrop", "prefix")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    block, table = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(table, Learned)):
        raise UsageError(OTHER)
    if length > table.length:
        raise UsageError(f"rows of {length} tokens: this model has {table.length} positions")
    settings = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "word_embed_proj_dim": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "ffn_dim": block.mlp.width,
        "max_position_embeddings": table.length,
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "tie_word_embeddings": isinstance(model.head, Tied),
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "model.decoder.layers.{layer}."
TABLE: Table = (
    entry("model.decoder.embed_tokens.weight", "embedding.kernel", "v e", "v e"),
    entry("model.decoder.embed_positions.weight", "position.table.kernel", "p e", "p e"),
    *(
        one
        for name in ("query", "key", "value")
        for one in (
            entry(f"{THERE}self_attn.{name[0]}_proj.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d"),
            entry(f"{THERE}self_attn.{name[0]}_proj.bias", f"{HERE}attention.{name}.bias", "(h d)", "h d"),
        )
    ),
    entry(f"{THERE}self_attn.out_proj.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{THERE}self_attn.out_proj.bias", f"{HERE}attention.out.bias"),
    entry(f"{THERE}fc1.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    entry(f"{THERE}fc1.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}fc2.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}fc2.bias", f"{HERE}mlp.down.bias"),
    *norms(f"{THERE}self_attn_layer_norm", f"{HERE}attention_norm"),
    *norms(f"{THERE}final_layer_norm", f"{HERE}mlp_norm"),
    *norms("model.decoder.final_layer_norm", "norm"),
    entry("lm_head.weight", "head.kernel", "v e", "e v"),
)
DERIVED = (r"lm_head\.weight",)
"""Tensors of published files that follow from the others; the head only where it is tied."""
OMITTED = "model."
"""Some files leave this out of all names but the head's."""
