"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): sizes, settings, tensors. BERT without next sentences.

Positions begin after the number of the padding token, and where tokens of that number stand in between they do not
count there: here none does. A file's `pad_token_id` therefore is not the tokenizer's to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.head import NoHead, Transformed
from jaxlm.config.model import Classifier, Encoder
from jaxlm.config.position import Learned
from jaxlm.families import bert, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("roberta",)
OTHER = (
    "this model is no RoBERTa: one kind of block, plain, a norm after each sum, learned positions after 1 or more "
    "others, LayerNorm, biases"
)
STEM = "Roberta"
WITHOUT = ("ForPreTraining", "ForNextSentencePrediction", "ForMultipleChoice")
SIZES = bert.SIZES


def roberta(size: str) -> Encoder:
    """base or large, of 50,265 tokens: 124,697,433 and 355,412,057 parameters."""
    layers, embed, heads = SIZES[size]
    parts = {"position": Learned(512, 2), "types": 1, "head": Transformed(), "epsilon": 1e-5}
    return bert.encoder(50_265, layers, embed, heads, 4 * embed, **parts)


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu")
    task = tasks.read(told, STEM, Transformed(), "tanh", without=WITHOUT)
    model = bert.like_bert(told, activation, task, offset=told.take("pad_token_id", 1) + 1)
    told.finish(*bert.DROPOUT)
    return model


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    settings = bert.common(model, length, STEM, OTHER)
    settings |= {"model_type": "roberta", "pad_token_id": model.position.offset - 1}
    return agreed(read, settings, model, OTHER)


def table(model: Encoder) -> Table:
    """How RoBERTa names the tensors of a model that it has."""
    classifier = model.classifier
    documents = isinstance(classifier, Classifier) and isinstance(model.head, NoHead) and classifier.of == "first"
    return (
        *bert.embeddings("roberta.embeddings"),
        *bert.layers("roberta.encoder.layer.{layer}."),
        *bert.linear("lm_head.dense", "head.dense"),
        *norms("lm_head.layer_norm", "head.norm"),
        entry("lm_head.bias", "head.bias"),
        *bert.linear("classifier.dense", "classifier.dense"),
        *bert.linear("classifier.out_proj" if documents else bert.labels(model), "classifier.out"),
    )


TABLE = table
ALIASES = (*bert.NORMS, ("classifier.", "qa_outputs."))
"""Parts of names in older files, and in those of tasks that are written as others -> what they are called here."""
DERIVED = (
    r"roberta\.embeddings\.position_ids",
    r"lm_head\..*",
    r"roberta\.pooler\.dense\.(weight|bias)",
)
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "roberta."
"""Some files leave this out of all names but those of heads."""
