"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): sizes, settings, tensors.

Its generator is a masked language model. Its discriminator (`ElectraForPreTraining`) has one label for each token:
whether it was replaced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.head import NoHead, Transformed
from jaxlm.config.model import Classifier, Encoder, Factorized, Normed
from jaxlm.config.position import Learned
from jaxlm.families import bert, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("electra",)
OTHER = "this model is no ELECTRA: one kind of block, plain, norms after sums, learned positions, LayerNorm, biases"
STEM = "Electra"
WITHOUT = ("ForNextSentencePrediction", "ForMultipleChoice")

SIZES = {"small": (128, 12, 256, 4), "base": (768, 12, 768, 12), "large": (1024, 24, 1024, 16)}
"""Size -> features of the tables, layers, features, heads (table 6; the published small has 4 heads)."""


def electra(size: str) -> Encoder:
    """The discriminators small, base and large: 13,549,057, 109,483,009 and 335,142,913 parameters."""
    features, layers, embed, heads = SIZES[size]
    replaced = {"head": NoHead(), "classifier": Classifier(1, "tokens", "gelu")}
    model = bert.encoder(30_522, layers, embed, heads, 4 * embed, position=Learned(512), types=2, **replaced)
    return _narrow(model, features)


def _narrow(model: Encoder, features: int) -> Encoder:
    """With tables of so many features, projected where the stream has others."""
    return dataclasses.replace(model, embedding=Normed() if features == model.embed else Factorized(features))


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu")
    own = {"ForPreTraining": (NoHead(), Classifier(1, "tokens", _smooth(activation)))}
    task = tasks.read(told, STEM, Transformed(), "gelu", without=WITHOUT, own=own)
    model = _narrow(bert.like_bert(told, activation, task), told.take("embedding_size", 128))
    told.finish(*bert.DROPOUT, "summary_last_dropout")
    return model


def _smooth(activation: str) -> str:
    """The activation of a classifier's dense layer: gelu for what it does not have."""
    return activation if activation == "relu" else "gelu"


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    settings = bert.common(model, length, STEM, OTHER)
    settings |= {"model_type": "electra", "embedding_size": model.features}
    return agreed(read, settings, model, OTHER)


def table(model: Encoder) -> Table:
    """How ELECTRA names the tensors of a model that it has."""
    match model.classifier:
        case Classifier(of="first"):
            dense, out = "classifier.dense", "classifier.out_proj"
        case Classifier(of="tokens", hidden="none"):
            dense, out = "", bert.labels(model)
        case _:
            dense, out = "discriminator_predictions.dense", "discriminator_predictions.dense_prediction"
    return (
        *bert.embeddings("electra.embeddings"),
        *bert.linear("electra.embeddings_project", "embedding_projection"),
        *bert.layers("electra.encoder.layer.{layer}."),
        *bert.linear("generator_predictions.dense", "head.dense"),
        *norms("generator_predictions.LayerNorm", "head.norm"),
        entry("generator_lm_head.bias", "head.bias"),
        *bert.linear(dense, "classifier.dense"),
        *bert.linear(out, "classifier.out"),
    )


TABLE = table
ALIASES = (*bert.NORMS, ("classifier.", "qa_outputs."))
"""Parts of names in older files, and in those of tasks that are written as others -> what they are called here."""
DERIVED = (
    r"electra\.embeddings\.position_ids",
    r"generator_lm_head\..*",
    r"(generator|discriminator)_predictions\..*",
)
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "electra."
"""Some files leave this out of all names but those of heads."""
