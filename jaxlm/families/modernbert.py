"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): sizes, settings, tensors.

Its classifiers have a norm after their dense layer and are not read; hidden states and masked language models are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, LayerNorm, Norm, NormedInput, Pattern, Unbiased
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Head, Transformed
from jaxlm.config.model import Encoder, NoClassifier, Normed
from jaxlm.config.position import Rope
from jaxlm.families import bert, rope, tasks
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Entry, Part, Table, entry, norms

MODEL_TYPES = ("modernbert",)
OTHER = (
    "this model is no ModernBERT: pre-norm layers with a window and without in turn, the first with one norm, "
    "gated, RoPE of two kinds, a normalized embedding"
)
STEM = "ModernBert"
WITHOUT = (
    "ForPreTraining",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
EVERY = 3
"""One layer of so many has no window, the first of the model among them."""

SIZES = {"base": (22, 768, 12, 1152), "large": (28, 1024, 16, 2624)}
"""Size -> layers, features, heads, MLP features (table 4)."""


def modernbert(size: str) -> Encoder:
    """base or large, of 50,368 tokens: 149,655,232 and 395,881,664 parameters."""
    layers, embed, heads, width = SIZES[size]
    block = Block(Attention(heads, heads, embed // heads), Gated(width, "gelu"))
    return _encoder(50_368, layers, embed, block, 65, (Rope(160_000.0), Rope()), Transformed(bias="vocab"))


def _encoder(
    vocab: int,
    layers: int,
    embed: int,
    block: Block,
    window: int,
    turns: tuple[Rope, Rope],
    head: Head,
    *,
    every: int = EVERY,
    norm: Norm = Unbiased(),
    classifier: NoClassifier = NoClassifier(),
) -> Encoder:
    """`turns` are those of layers without a window, and of those with one."""
    whole, own = turns
    local = replace(block, attention=replace(block.attention, window=window, position=own))
    return Encoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Pattern(
            prefix=(replace(block, wiring=NormedInput()),),
            period=(*(local,) * (every - 1), block),
            suffix=(local,) * ((layers - 1) % every),
        ),
        position=whole,
        norm=norm,
        head=head,
        embedding=Normed(),
        classifier=classifier,
    )


def kinds(layers: int, every: int) -> list[str]:
    """The `layer_types` of such layers."""
    return ["sliding_attention" if number % every else "full_attention" for number in range(layers)]


def read(settings: Mapping[str, Any]) -> Encoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    layers, embed, heads = map(told.take, ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    both = {name: "all" if told.take(f"{name}_bias", False) else "none" for name in ("attention", "mlp")}
    activation = told.choose("hidden_activation", ACTIVATIONS, "gelu")
    every, types = told.take("global_attn_every_n_layers", EVERY), settings.get("layer_types") or ()
    if "full_attention" in types[1:]:
        every = types.index("full_attention", 1)
    told.expect("layer_types", None, kinds(layers, every))
    told.expect("decoder_bias", True)
    told.expect("tie_word_embeddings", True)
    # Learned ones are of the classes that came before this one.
    told.expect("position_embedding_type", "absolute")
    dense = "all" if told.take("classifier_bias", False) else "vocab"
    head = Transformed(told.choose("classifier_activation", ACTIVATIONS, "gelu"), dense)
    epsilon = told.take("norm_eps", 1e-5)
    model = _encoder(
        told.take("vocab_size"),
        layers,
        embed,
        Block(
            Attention(heads, heads, embed // heads, bias=both["attention"]),
            Gated(told.take("intermediate_size"), activation, bias=both["mlp"]),
        ),
        told.take("local_attention", 128) // 2 + 1,
        _turns(told),
        every=every,
        norm=LayerNorm(epsilon) if told.take("norm_bias", False) else Unbiased(epsilon),
        **tasks.read(told, STEM, head, "gelu", without=WITHOUT),
    )
    told.finish(*DROPOUT, *OF_TRAINING, "max_position_embeddings", "layer_norm_eps")
    return model


DROPOUT = ("attention_dropout", "classifier_dropout", "embedding_dropout", "mlp_dropout")
OF_TRAINING = (
    "classifier_pooling",
    "cls_token_id",
    "deterministic_flash_attn",
    "initializer_cutoff_factor",
    "reference_compile",
    "repad_logits_with_grad",
    "sep_token_id",
    "sparse_pred_ignore_index",
    "sparse_prediction",
)
"""Settings of training, of how things are computed, and of classifiers."""


def _turns(told: Settings) -> tuple[Rope, Rope]:
    """Turns of layers without a window, and of those with one."""
    both = dict(told.take("rope_parameters", None) or {})
    whole, own = told.take("global_rope_theta", 160_000.0), told.take("local_rope_theta", 10_000.0)
    return (
        rope.read(Settings({"rope_theta": whole, "rope_parameters": both.get("full_attention")})),
        rope.read(Settings({"rope_theta": own, "rope_parameters": both.get("sliding_attention")})),
    )


def write(model: Encoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    pattern, whole = model.block, model.position
    if not (isinstance(pattern, Pattern) and len(pattern.period) > 1 and isinstance(whole, Rope)):
        raise UsageError(OTHER)
    block, local = pattern.period[-1], pattern.period[0].attention
    if not (isinstance(block.mlp, Gated) and isinstance(local.position, Rope) and local.window):
        raise UsageError(OTHER)
    head = {}
    if isinstance(model.head, Transformed):
        head = {"classifier_bias": model.head.bias == "all", "classifier_activation": named(model.head.activation)}
    settings = tasks.write(model, STEM, OTHER) | head
    settings |= {
        "model_type": "modernbert",
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": block.mlp.width,
        "hidden_activation": named(block.mlp.activation),
        "attention_bias": block.attention.bias == "all",
        "mlp_bias": block.mlp.bias == "all",
        "norm_bias": isinstance(model.norm, LayerNorm),
        "norm_eps": model.norm.epsilon,
        "local_attention": 2 * (local.window - 1),
        "global_attn_every_n_layers": len(pattern.period),
        "layer_types": kinds(model.layers, len(pattern.period)),
        "rope_parameters": {
            "full_attention": rope.write(whole, length),
            "sliding_attention": rope.write(local.position, length),
        },
        "max_position_embeddings": length,
        "pad_token_id": None,  # where nothing is said it is one that small vocabularies do not have
        "tie_word_embeddings": True,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "model.layers.{layer}."
QKV = ("query", "key", "value")
TABLE: Table = (
    entry("model.embeddings.tok_embeddings.weight", "embedding.kernel", "v e", "v e"),
    *norms("model.embeddings.norm", "embedding_norm"),
    *norms(f"{THERE}attn_norm", f"{HERE}attention_norm"),
    Entry(
        f"{THERE}attn.Wqkv.weight", "(+ h d) e", tuple(Part(f"{HERE}attention.{n}.kernel", "e h d") for n in QKV)
    ),
    Entry(f"{THERE}attn.Wqkv.bias", "(+ h d)", tuple(Part(f"{HERE}attention.{n}.bias", "h d") for n in QKV)),
    entry(f"{THERE}attn.Wo.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{THERE}attn.Wo.bias", f"{HERE}attention.out.bias"),
    *norms(f"{THERE}mlp_norm", f"{HERE}mlp_norm"),
    Entry(f"{THERE}mlp.Wi.weight", "(+ m) e", tuple(Part(f"{HERE}mlp.{n}.kernel", "e m") for n in ("gate", "up"))),
    Entry(f"{THERE}mlp.Wi.bias", "(+ m)", tuple(Part(f"{HERE}mlp.{n}.bias", "m") for n in ("gate", "up"))),
    entry(f"{THERE}mlp.Wo.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.Wo.bias", f"{HERE}mlp.down.bias"),
    *norms("model.final_norm", "norm"),
    *bert.linear("head.dense", "head.dense"),
    *norms("head.norm", "head.norm"),
    entry("decoder.bias", "head.bias"),
)
DERIVED = (r"decoder\..*", r"head\..*")
"""Tensors of published files that follow from the others, or that the model's task does not use."""
OMITTED = "model."
"""Some files leave this out of all names but those of heads."""
