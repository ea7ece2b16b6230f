"""ALBERT (Lan et al. 2019, arXiv:1909.11942): sizes, settings, tensors. One layer over and over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Block, Shared
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Transformed
from jaxlm.config.model import Encoder, Factorized
from jaxlm.config.position import Learned
from jaxlm.families import bert, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("albert",)
OTHER = "this model is no ALBERT: one shared block, plain, norms after sums, projected tables, learned positions"
STEM = "Albert"
WITHOUT = ("ForNextSentencePrediction",)

SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16), "xlarge": (24, 2048, 16), "xxlarge": (12, 4096, 64)}
"""Size -> layers, features, heads (table 1; the published xlarge has 16 heads)."""


def albert(size: str) -> Encoder:
    """One of `SIZES`, with 30,000 tokens: 11,221,680, 16,795,824, 54,821,040 and 206,368,944 parameters."""
    layers, embed, heads = SIZES[size]
    head, kind = Transformed("gelu_tanh"), {"activation": "gelu_tanh", "types": 2}
    model = bert.encoder(30_000, layers, embed, heads, 4 * embed, position=Learned(512), head=head, **kind)
    return _shared(model, 128)


def _shared(model: Encoder, features: int) -> Encoder:
    """With one block for all layers, and tables of so many features."""
    return dataclasses.replace(model, block=Shared((model.block,)), embedding=Factorized(features))


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu_new")
    for name, value in (("num_hidden_groups", 1), ("inner_group_num", 1), ("net_structure_type", 0)):
        told.expect(name, value)
    task = tasks.read(told, STEM, Transformed(activation), "tanh", without=WITHOUT)
    model = _shared(bert.like_bert(told, activation, task), told.take("embedding_size", 128))
    # Of training only, and what nothing has ever read.
    told.finish(*bert.DROPOUT, "classifier_dropout_prob", "down_scale_factor", "gap_size", "num_memory_blocks")
    return model


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    match model.block:
        case Shared((Block() as block,)):
            single = dataclasses.replace(model, block=block)
        case _:
            raise UsageError(OTHER)
    settings = bert.common(single, length, STEM, OTHER)
    settings |= {"model_type": "albert", "embedding_size": model.features, "num_hidden_groups": 1}
    settings |= {"inner_group_num": 1, "hidden_act": written(block.mlp.activation)}
    return agreed(read, settings, model, OTHER)


def written(activation: str) -> str:
    """Their name of an activation: ALBERT's own of the approximate gelu is the older."""
    return "gelu_new" if activation == "gelu_tanh" else named(activation)


HERE, THERE = "blocks.{layer}.", "albert.encoder.albert_layer_groups.0.albert_layers.{layer}."


def table(model: Encoder) -> Table:
    """How ALBERT names the tensors of a model that it has."""
    labels = "sop_classifier.classifier" if isinstance(model.head, Transformed) else bert.labels(model)
    return (
        *bert.embeddings("albert.embeddings"),
        *bert.linear("albert.encoder.embedding_hidden_mapping_in", "embedding_projection"),
        *(
            one
            for name in ("query", "key", "value")
            for one in (
                entry(f"{THERE}attention.{name}.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d"),
                entry(f"{THERE}attention.{name}.bias", f"{HERE}attention.{name}.bias", "(h d)", "h d"),
            )
        ),
        entry(f"{THERE}attention.dense.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
        entry(f"{THERE}attention.dense.bias", f"{HERE}attention.out.bias"),
        *norms(f"{THERE}attention.LayerNorm", f"{HERE}attention_norm"),
        *bert.linear(f"{THERE}ffn", f"{HERE}mlp.up"),
        *bert.linear(f"{THERE}ffn_output", f"{HERE}mlp.down"),
        *norms(f"{THERE}full_layer_layer_norm", f"{HERE}mlp_norm"),
        *bert.linear("predictions.dense", "head.dense"),
        *norms("predictions.LayerNorm", "head.norm"),
        entry("predictions.bias", "head.bias"),
        *bert.linear("albert.pooler", "classifier.dense"),
        *bert.linear(labels, "classifier.out"),
    )


TABLE = table
ALIASES = (*bert.NORMS, ("classifier.", "qa_outputs."))
"""Parts of names in older files, and in those of tasks that are written as others -> what they are called here."""
DERIVED = (
    r"albert\.embeddings\.position_ids",
    r"albert\.pooler\.(weight|bias)",
    r"(predictions|sop_classifier)\..*",
)
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "albert."
"""Some files leave this out of all names but those of heads."""
