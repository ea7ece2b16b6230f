"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): size, settings, tensors. Half of BERT, without types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Block, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Transformed
from jaxlm.config.model import Encoder
from jaxlm.config.position import Learned
from jaxlm.families import bert, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("distilbert",)
OTHER = (
    "this model is no DistilBERT: one kind of block, plain, a norm after each sum, learned positions, no types, "
    "LayerNorm, biases"
)
STEM = "DistilBert"
WITHOUT = ("ForPreTraining", "ForNextSentencePrediction")
EPSILON = 1e-12


def distilbert_base() -> Encoder:
    """Of 30,522 tokens: 66,985,530 parameters."""
    return bert.encoder(30_522, 6, 768, 12, 3072, position=Learned(512), types=0, head=Transformed())


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    told.expect("sinusoidal_pos_embds", False, True)  # trained like any other table, it only began as sinusoids
    told.expect("tie_weights_", True)
    told.expect("tie_word_embeddings", True)
    activation = told.choose("activation", ACTIVATIONS, "gelu")
    model = bert.encoder(
        told.take("vocab_size"),
        told.take("n_layers"),
        told.take("dim"),
        told.take("n_heads"),
        told.take("hidden_dim"),
        position=Learned(told.take("max_position_embeddings")),
        types=0,
        activation=activation,
        epsilon=EPSILON,
        **tasks.read(told, STEM, Transformed(activation), "relu", without=WITHOUT),
    )
    told.finish("attention_dropout", "dropout", "output_past", "qa_dropout", "seq_classif_dropout")
    return model


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    block, positions = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(positions, Learned)):
        raise UsageError(OTHER)
    if length > positions.length:
        raise UsageError(f"rows of {length} tokens: this model has {positions.length} positions")
    settings = tasks.write(model, STEM, OTHER) | {
        "model_type": "distilbert",
        "vocab_size": model.vocab,
        "dim": model.embed,
        "n_layers": model.layers,
        "n_heads": block.attention.heads,
        "hidden_dim": block.mlp.width,
        "activation": named(block.mlp.activation),
        "max_position_embeddings": positions.length,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "distilbert.transformer.layer.{layer}."


def table(model: Encoder) -> Table:
    """How DistilBERT names the tensors of a model that it has."""
    return (
        *bert.embeddings("distilbert.embeddings"),
        *(
            one
            for name in ("query", "key", "value")
            for one in (
                entry(
                    f"{THERE}attention.{name[0]}_lin.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d"
                ),
                entry(f"{THERE}attention.{name[0]}_lin.bias", f"{HERE}attention.{name}.bias", "(h d)", "h d"),
            )
        ),
        entry(f"{THERE}attention.out_lin.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
        entry(f"{THERE}attention.out_lin.bias", f"{HERE}attention.out.bias"),
        *norms(f"{THERE}sa_layer_norm", f"{HERE}attention_norm"),
        *bert.linear(f"{THERE}ffn.lin1", f"{HERE}mlp.up"),
        *bert.linear(f"{THERE}ffn.lin2", f"{HERE}mlp.down"),
        *norms(f"{THERE}output_layer_norm", f"{HERE}mlp_norm"),
        *bert.linear("vocab_transform", "head.dense"),
        *norms("vocab_layer_norm", "head.norm"),
        entry("vocab_projector.bias", "head.bias"),
        *bert.linear("pre_classifier", "classifier.dense"),
        *bert.linear(bert.labels(model), "classifier.out"),
    )


TABLE = table
ALIASES = (("classifier.", "qa_outputs."),)
"""Parts of names in files of tasks that are written as others -> what they are called here."""
DERIVED = (r"distilbert\.embeddings\.position_ids", r"vocab_(projector|transform|layer_norm)\..*")
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "distilbert."
"""Some files leave this out of all names but those of heads."""
