"""BLOOM (BigScience 2022, arXiv:2211.05100): sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder, Normed
from jaxlm.config.position import Alibi
from jaxlm.families import falcon
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, norms

MODEL_TYPES = ("bloom",)
OTHER = "this model is no BLOOM: one kind of block, MLPs 4 times as wide, ALiBi, LayerNorm, also of tokens, biases"

SIZES = {
    "560m": (24, 1024, 16),
    "1b1": (24, 1536, 16),
    "1b7": (24, 2048, 16),
    "3b": (30, 2560, 32),
    "7b1": (30, 4096, 32),
    "176b": (70, 14_336, 112),
}
"""Size -> layers, features, heads (table 3)."""


def bloom(size: str) -> Decoder:
    """One of `SIZES`: 560m has 559,214,592 parameters, 7b1 7,069,016,064, 176b 176,247,271,424."""
    return _decoder(*SIZES[size], vocab=250_880)


def _decoder(
    layers: int, embed: int, heads: int, *, vocab: int, epsilon: float = 1e-5, head: Tied | Untied = Tied()
) -> Decoder:
    attention = Attention(heads, heads, embed // heads, bias="all")
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(4 * embed, "gelu_tanh", bias="all")),
        position=Alibi(),
        norm=LayerNorm(epsilon),
        head=head,
        embedding=Normed(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    told.expect("apply_residual_connection_post_layernorm", False)
    embed = told.first("hidden_size", "n_embed")
    told.expect("n_inner", None, 4 * embed)
    model = _decoder(
        told.first("n_layer", "num_hidden_layers"),
        embed,
        told.first("n_head", "num_attention_heads"),
        vocab=told.take("vocab_size"),
        epsilon=told.take("layer_norm_epsilon", 1e-5),
        head=Tied() if told.take("tie_word_embeddings", True) else Untied(),
    )
    # Of training, or how other code computes the same.
    told.finish(
        "attention_dropout", "attention_softmax_in_fp32", "bias_dropout_fusion", "hidden_dropout",
        "masked_softmax_fusion", "offset_alibi", "seq_length", "skip_bias_add", "skip_bias_add_qkv",
        "slow_but_exact", "unk_token_id",
    )  # fmt: skip
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for any rows. Raises UsageError for any other."""
    block = model.block
    if not (isinstance(block, Block) and isinstance(model.norm, LayerNorm)):
        raise UsageError(OTHER)
    settings = {
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "n_layer": model.layers,
        "n_head": block.attention.heads,
        "layer_norm_epsilon": model.norm.epsilon,
        "tie_word_embeddings": isinstance(model.head, Tied),
        "seq_length": length,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = falcon.HERE, falcon.THERE
TABLE: Table = (
    *falcon.COMMON,
    *norms("transformer.word_embeddings_layernorm", "embedding_norm"),
    *norms(f"{THERE}input_layernorm", f"{HERE}attention_norm"),
    *norms(f"{THERE}post_attention_layernorm", f"{HERE}mlp_norm"),
)
DERIVED, OMITTED = falcon.DERIVED, falcon.OMITTED
