"""BART (Lewis et al. 2019, arXiv:1910.13461): sizes, settings, tensors.

Published files hold biases of the scores that are no parameters and all zero: they are not kept, and a file where
one is not zero is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain, PostNorm
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied
from jaxlm.config.model import EncoderDecoder, Normed
from jaxlm.config.position import Learned
from jaxlm.families.bert import linear
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.t5 import expect_generation
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("bart",)
OTHER = (
    "this model is no BART: one kind of block, plain, a norm after each sum and the embedding, learned positions "
    "with a table for each half, LayerNorm, biases, a tied head, BOS before a source"
)
SIZES = {"base": (6, 768, 12), "large": (12, 1024, 16)}
"""Size -> layers of each half, features, heads."""
EPSILON, OFFSET = 1e-5, 2
"""What no config.json tells: of all norms, and rows of the tables of positions that are no position's."""
START = 2
"""The end token: targets begin with it."""


def bart(size: str) -> EncoderDecoder:
    """base or large, of 50,265 tokens: 139,420,416 and 406,291,456 parameters."""
    layers, embed, heads = SIZES[size]
    attention = Attention(heads, heads, embed // heads, bias="all")
    return _model(50_265, embed, (layers, layers), attention, Plain(4 * embed, "gelu", bias="all"), 1024, START)


def _model(
    vocab: int,
    embed: int,
    layers: tuple[int, int],
    attention: Attention,
    mlp: Plain,
    length: int,
    start: int | None,
) -> EncoderDecoder:
    return EncoderDecoder(
        vocab=vocab,
        embed=embed,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        block=Block(attention, mlp, PostNorm()),
        position=Learned(length, OFFSET),
        norm=LayerNorm(EPSILON),
        head=Tied(),
        embedding=Normed(),
        tables="each",
        source="bos_text",
        start=start,
    )


TRAINING = ("activation_dropout", "attention_dropout", "classif_dropout", "classifier_dropout")
TRAINING += ("decoder_layerdrop", "dropout", "encoder_layerdrop", "init_std")
"""Settings of training only."""
GENERATION = ("early_stopping", "force_bos_token_to_be_generated", "forced_bos_token_id", "forced_eos_token_id")
GENERATION += ("length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beams", "prefix")
"""Settings of how texts are drawn; those are the caller's here."""


def read(settings: Mapping[str, Any]) -> EncoderDecoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings({"decoder_start_token_id": START} | dict(settings))
    expect_generation(told, "Bart", "BartModel")  # which the published files name: the head is the embedding
    for name, value in (
        ("add_bias_logits", False),
        ("add_final_layer_norm", False),
        ("normalize_before", False),
        ("normalize_embedding", True),
        ("scale_embedding", False),
        ("static_position_embeddings", False),
        ("extra_pos_embeddings", 2),
        ("tie_word_embeddings", True),
    ):
        told.expect(name, value)
    embed, heads, width = told.take("d_model"), told.take("encoder_attention_heads"), told.take("encoder_ffn_dim")
    told.expect("decoder_attention_heads", heads)
    told.expect("decoder_ffn_dim", width)
    layers = told.take("encoder_layers")
    told.expect("num_hidden_layers", layers)
    model = _model(
        told.take("vocab_size"),
        embed,
        (layers, told.take("decoder_layers")),
        Attention(heads, heads, embed // heads, bias="all"),
        Plain(width, told.choose("activation_function", ACTIVATIONS, "gelu"), bias="all"),
        told.take("max_position_embeddings", 1024),
        told.take("decoder_start_token_id"),
    )
    told.finish(*TRAINING, *GENERATION)
    return model


def write(model: EncoderDecoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    block, table = model.block, model.position
    if not (isinstance(block.mlp, Plain) and isinstance(table, Learned)):
        raise UsageError(OTHER)
    if length > table.length:
        raise UsageError(f"rows of {length} tokens: this model has {table.length} positions")
    settings = {
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": model.vocab,
        "d_model": model.embed,
        "encoder_layers": model.encoder_layers,
        "decoder_layers": model.decoder_layers,
        "encoder_attention_heads": block.attention.heads,
        "decoder_attention_heads": block.attention.heads,
        "encoder_ffn_dim": block.mlp.width,
        "decoder_ffn_dim": block.mlp.width,
        "activation_function": named(block.mlp.activation),
        "max_position_embeddings": table.length,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "decoder_start_token_id": model.start,
    }
    return agreed(read, settings, model, OTHER)


def _attention(there: str, here: str) -> Table:
    """Queries, keys, values and what follows, and their biases."""
    parts = (("q", "query"), ("k", "key"), ("v", "value"))
    return (
        *(
            one
            for theirs, ours in parts
            for one in (
                entry(f"{there}.{theirs}_proj.weight", f"{here}.{ours}.kernel", "(h d) e", "e h d"),
                entry(f"{there}.{theirs}_proj.bias", f"{here}.{ours}.bias", "(h d)", "h d"),
            )
        ),
        entry(f"{there}.out_proj.weight", f"{here}.out.kernel", "e (h d)", "h d e"),
        entry(f"{there}.out_proj.bias", f"{here}.out.bias"),
    )


def _layers(there: str, here: str) -> Table:
    """The layers of one half, whose names begin like this."""
    return (
        *_attention(f"{there}.self_attn", f"{here}.attention"),
        *norms(f"{there}.self_attn_layer_norm", f"{here}.attention_norm"),
        *linear(f"{there}.fc1", f"{here}.mlp.up"),
        *linear(f"{there}.fc2", f"{here}.mlp.down"),
        *norms(f"{there}.final_layer_norm", f"{here}.mlp_norm"),
    )


def _ends(there: str, position: str, norm: str) -> Table:
    """A half's own table of positions, and the norm of its embedding."""
    return (
        entry(f"{there}.embed_positions.weight", f"{position}.table.kernel", "p e", "p e"),
        *norms(f"{there}.layernorm_embedding", norm),
    )


ENCODER, DECODER = "model.encoder.layers.{layer}", "model.decoder.layers.{layer}"
CROSSING = "decoder.blocks.{layer}."
TABLE: Table = (
    entry("model.shared.weight", "decoder.embedding.kernel", "v e", "v e"),
    *_ends("model.encoder", "encoder_position", "encoder_embedding_norm"),
    *_layers(ENCODER, "encoder.{layer}"),
    *_ends("model.decoder", "decoder.position", "decoder.embedding_norm"),
    *_layers(DECODER, "decoder.blocks.{layer}"),
    *_attention(f"{DECODER}.encoder_attn", f"{CROSSING}cross"),
    *norms(f"{DECODER}.encoder_attn_layer_norm", f"{CROSSING}cross_norm"),
)
DERIVED = (r"model\.(encoder|decoder)\.embed_tokens\.weight", r"lm_head\.weight", r"(model\.)?final_logits_bias")
"""Tensors of published files that follow from the others."""
ZERO = ("final_logits_bias",)
"""Those of them that are all zero, or else something that is not known here."""
OMITTED = "model."
