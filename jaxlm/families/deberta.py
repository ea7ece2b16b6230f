"""DeBERTa v2 and v3 (He et al. 2020, arXiv:2006.03654; 2021, arXiv:2111.09543): sizes, settings, tensors.

Models with a convolution beside their first layer (v2's xlarge and xxlarge) are refused, and so are positions that
are added to tokens. The published files of v3 are of hidden states: name `DebertaV2Model` in their `architectures`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Block, Plain
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.head import Transformed
from jaxlm.config.model import Encoder
from jaxlm.config.position import Disentangled
from jaxlm.families import bert, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("deberta-v2",)
OTHER = "this model is no DeBERTa: one kind of block, plain, norms after sums, disentangled positions, biases"
STEM = "DebertaV2"
WITHOUT = ("ForPreTraining", "ForNextSentencePrediction")

SIZES = {"xsmall": (12, 384, 6), "small": (6, 768, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Size of v3 -> layers, features, heads."""


def deberta_v3(size: str) -> Encoder:
    """One of `SIZES`, with a head: 70,958,820, 142,024,548, 184,551,780 and 435,191,908 parameters."""
    layers, embed, heads = SIZES[size]
    parts = {"position": Disentangled(), "head": Transformed(), "epsilon": 1e-7}
    return _encoder(128_100, layers, embed, heads, 4 * embed, **parts)


def _encoder(*sizes: int, position: Disentangled, **parts: Any) -> Encoder:
    """As BERT, with three kinds of products in each score."""
    model = bert.encoder(*sizes, position=position, types=parts.pop("types", 0), **parts)
    attention = model.block.attention
    attention = dataclasses.replace(attention, scale=(3 * attention.head) ** -0.5)
    return dataclasses.replace(model, block=dataclasses.replace(model.block, attention=attention))


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu")
    longest, embed = told.take("max_position_embeddings"), told.take("hidden_size")
    if told.take("conv_kernel_size", 0):
        raise Failure("config.json: conv_kernel_size: a convolution beside the first layer is not known here")
    told.expect("relative_attention", True)
    told.expect("share_att_key", True)
    told.expect("position_biased_input", False)
    told.expect("legacy", True)
    told.expect("tie_word_embeddings", True)
    told.expect("pooler_hidden_act", "gelu")
    told.expect("pooler_hidden_size", embed)
    told.expect("embedding_size", embed)
    told.expect("attention_head_size", embed // settings["num_attention_heads"])
    told.expect("pos_att_type", "p2c|c2p", "c2p|p2c", ["p2c", "c2p"], ["c2p", "p2c"])
    furthest = told.take("max_relative_positions", -1)
    position = Disentangled(
        told.take("position_buckets"),
        furthest if furthest > 0 else longest,
        told.choose("norm_rel_ebd", {"none": "plain", "layer_norm": "normed"}, "none"),
    )
    model = _encoder(
        told.take("vocab_size"),
        told.take("num_hidden_layers"),
        embed,
        told.take("num_attention_heads"),
        told.take("intermediate_size"),
        position=position,
        types=told.take("type_vocab_size", 0),
        activation=activation,
        epsilon=told.take("layer_norm_eps", 1e-7),
        **tasks.read(told, STEM, Transformed(activation), "gelu", without=WITHOUT),
    )
    told.finish(*bert.DROPOUT, "cls_dropout", "pooler_dropout", "conv_act")
    return model


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    block, position = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(position, Disentangled)):
        raise UsageError(OTHER)
    settings = tasks.write(model, STEM, OTHER) | {
        "model_type": "deberta-v2",
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": block.mlp.width,
        "hidden_act": named(block.mlp.activation),
        "max_position_embeddings": length,
        "type_vocab_size": model.types,
        "layer_norm_eps": model.norm.epsilon,
        "relative_attention": True,
        "share_att_key": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": position.buckets,
        "max_relative_positions": position.distance,
        "norm_rel_ebd": "layer_norm" if position.vectors == "normed" else "none",
        "tie_word_embeddings": True,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "deberta.encoder.layer.{layer}."
SELF = f"{THERE}attention.self"


def table(model: Encoder) -> Table:
    """How DeBERTa names the tensors of a model that it has."""
    return (
        *(one for one in bert.embeddings("deberta.embeddings") if "position" not in one.name),
        entry("deberta.encoder.rel_embeddings.weight", "position.table.kernel", "p e", "p e"),
        *norms("deberta.encoder.LayerNorm", "position.norm"),
        *(
            one
            for name in ("query", "key", "value")
            for one in (
                entry(f"{SELF}.{name}_proj.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d"),
                entry(f"{SELF}.{name}_proj.bias", f"{HERE}attention.{name}.bias", "(h d)", "h d"),
            )
        ),
        *(one for one in bert.layers(THERE) if ".self." not in one.name),
        *bert.linear("cls.predictions.transform.dense", "head.dense"),
        *norms("cls.predictions.transform.LayerNorm", "head.norm"),
        entry("cls.predictions.bias", "head.bias"),
        *bert.linear("pooler.dense", "classifier.dense"),
        *bert.linear(bert.labels(model), "classifier.out"),
    )


TABLE = table
ALIASES = (("classifier.", "qa_outputs."),)
"""Parts of names in files of tasks that are written as others -> what they are called here."""
DERIVED = (
    r"deberta\.embeddings\.position_ids",
    r"(cls|lm_predictions|mask_predictions)\..*",
    r"pooler\.dense\.(weight|bias)",
)
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "deberta."
"""Some files leave this out of all names but those of heads."""
