"""BERT (Devlin et al. 2018, arXiv:1810.04805), and MiniLM, which is built like it: sizes, settings, tensors.

`BertModel` files, sentence encoders mostly, hold a pooler that those who take the mean of tokens do not use: it is
left out, as is that of a file whose `architectures` name only the masked language model. To read it, name
`BertForSequenceClassification` or `BertForPreTraining`, whose classifier's dense layer it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Activation, Attention, Block, LayerNorm, Plain, PostNorm
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Head, NoHead, Transformed
from jaxlm.config.model import Classifier, Encoder, NoClassifier, Normed
from jaxlm.config.position import Learned
from jaxlm.families import tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("bert",)
OTHER = (
    "this model is no BERT: one kind of block, plain, a norm after each sum, learned positions, LayerNorm, biases"
)
STEM = "Bert"

SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
"""Size -> layers, features, heads."""
DROPOUT = ("attention_probs_dropout_prob", "classifier_dropout", "hidden_dropout_prob")
"""Settings of training only."""


def bert(size: str) -> Encoder:
    """base or large, of 30,522 tokens: 109,514,298 and 335,174,458 parameters."""
    layers, embed, heads = SIZES[size]
    return encoder(30_522, layers, embed, heads, 4 * embed, position=Learned(512), types=2, head=Transformed())


def minilm_l6() -> Encoder:
    """all-MiniLM-L6-v2, a sentence encoder: 22,565,376 parameters, without its pooler (arXiv:2002.10957)."""
    return encoder(30_522, 6, 384, 12, 1536, position=Learned(512), types=2, head=NoHead())


def encoder(
    vocab: int,
    layers: int,
    embed: int,
    heads: int,
    width: int,
    *,
    position: Learned,
    types: int,
    head: Head,
    activation: Activation = "gelu",
    epsilon: float = 1e-12,
    classifier: NoClassifier | Classifier = NoClassifier(),
) -> Encoder:
    """What BERT and its relatives have in common."""
    attention = Attention(heads, heads, embed // heads, bias="all")
    return Encoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(width, activation, bias="all"), PostNorm()),
        position=position,
        norm=LayerNorm(epsilon),
        head=head,
        embedding=Normed(),
        types=types,
        classifier=classifier,
    )


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    activation = told.choose("hidden_act", ACTIVATIONS, "gelu")
    model = like_bert(told, activation, tasks.read(told, STEM, Transformed(activation), "tanh"))
    told.finish(*DROPOUT, *POOLER, "directionality")
    return model


POOLER = tuple(
    f"pooler_{name}" for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")
)
"""Settings of some files that nothing has ever read."""


def like_bert(told: Settings, activation: Activation, task: Mapping[str, Any], *, offset: int = 0) -> Encoder:
    """What the settings of BERT and its relatives have in common; `task` is its head and classifier."""
    told.expect("is_decoder", False)
    told.expect("add_cross_attention", False)
    told.expect("position_embedding_type", "absolute")
    told.expect("tie_word_embeddings", True)
    return encoder(
        told.take("vocab_size"),
        told.take("num_hidden_layers"),
        told.take("hidden_size"),
        told.take("num_attention_heads"),
        told.take("intermediate_size"),
        position=Learned(told.take("max_position_embeddings") - offset, offset),
        types=told.take("type_vocab_size", 2),
        activation=activation,
        epsilon=told.take("layer_norm_eps", 1e-12),
        **task,
    )


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    return agreed(read, {"model_type": "bert"} | common(model, length, STEM, OTHER), model, OTHER)


def common(model: Encoder, length: int, stem: str, other: str) -> dict[str, Any]:
    """The settings that BERT and its relatives have in common. Raises UsageError with the text `other`."""
    block, table = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(table, Learned)):
        raise UsageError(other)
    if length > table.length:
        raise UsageError(f"rows of {length} tokens: this model has {table.length} positions")
    return tasks.write(model, stem, other) | {
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": block.mlp.width,
        "hidden_act": named(block.mlp.activation),
        "max_position_embeddings": table.length + table.offset,
        "type_vocab_size": model.types,
        "layer_norm_eps": model.norm.epsilon,
        "tie_word_embeddings": True,
    }


def linear(theirs: str, ours: str) -> Table:
    """A dense layer: its matrix, outputs first there, and its bias."""
    return entry(f"{theirs}.weight", f"{ours}.kernel", "o i", "i o"), entry(f"{theirs}.bias", f"{ours}.bias")


def embeddings(there: str) -> Table:
    """The tables of tokens, positions and types, and the norm of their sum."""
    return (
        entry(f"{there}.word_embeddings.weight", "embedding.kernel", "v e", "v e"),
        entry(f"{there}.position_embeddings.weight", "position.table.kernel", "p e", "p e"),
        entry(f"{there}.token_type_embeddings.weight", "types.kernel", "t e", "t e"),
        *norms(f"{there}.LayerNorm", "embedding_norm"),
    )


def layers(there: str) -> Table:
    """The layers, whose names begin like this."""
    here = "blocks.{layer}."
    return (
        *(
            one
            for name in ("query", "key", "value")
            for one in (
                entry(f"{there}attention.self.{name}.weight", f"{here}attention.{name}.kernel", "(h d) e", "e h d"),
                entry(f"{there}attention.self.{name}.bias", f"{here}attention.{name}.bias", "(h d)", "h d"),
            )
        ),
        entry(f"{there}attention.output.dense.weight", f"{here}attention.out.kernel", "e (h d)", "h d e"),
        entry(f"{there}attention.output.dense.bias", f"{here}attention.out.bias"),
        *norms(f"{there}attention.output.LayerNorm", f"{here}attention_norm"),
        *linear(f"{there}intermediate.dense", f"{here}mlp.up"),
        *linear(f"{there}output.dense", f"{here}mlp.down"),
        *norms(f"{there}output.LayerNorm", f"{here}mlp_norm"),
    )


def labels(model: Encoder) -> str:
    """What BERT and its relatives call the matrix to the labels."""
    match model.head, model.classifier:
        case Transformed(), _:
            return "cls.seq_relationship"
        case _, Classifier(2, "tokens"):
            return "qa_outputs"
        case _:
            return "classifier"


def table(model: Encoder) -> Table:
    """How BERT names the tensors of a model that it has."""
    return (
        *embeddings("bert.embeddings"),
        *layers("bert.encoder.layer.{layer}."),
        *linear("cls.predictions.transform.dense", "head.dense"),
        *norms("cls.predictions.transform.LayerNorm", "head.norm"),
        entry("cls.predictions.bias", "head.bias"),
        *linear("bert.pooler.dense", "classifier.dense"),
        *linear(labels(model), "classifier.out"),
    )


TABLE = table
NORMS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
ALIASES = (
    *NORMS,
    ("cls.seq_relationship.", "classifier."),
    ("classifier.", "qa_outputs."),
)
"""Parts of names in older files, and in those of tasks that are written as others -> what they are called here."""
DERIVED = (
    r"bert\.embeddings\.position_ids",
    r"cls\.predictions\.decoder\.(weight|bias)",
    r"bert\.pooler\.dense\.(weight|bias)",
    r"cls\..*",
)
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "bert."
"""Some files leave this out of all names but those of heads."""
