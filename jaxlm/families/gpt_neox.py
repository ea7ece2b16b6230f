"""GPT-NeoX-20B (Black et al. 2022, arXiv:2204.06745) and Pythia (Biderman et al. 2023, arXiv:2304.01373)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, ParallelTwoNorms, Plain, PreNorm
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import rope
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Entry, Part, Table, entry, norms

MODEL_TYPES = ("gpt_neox",)
OTHER = "this model is no GPT-NeoX: one kind of block, plain MLP, RoPE in halves, LayerNorm, biases in every MLP"

PYTHIA = {
    "70m": (6, 512, 8, 50_304),
    "160m": (12, 768, 12, 50_304),
    "410m": (24, 1024, 16, 50_304),
    "1b": (16, 2048, 8, 50_304),
    "1.4b": (24, 2048, 16, 50_304),
    "2.8b": (32, 2560, 32, 50_304),
    "6.9b": (32, 4096, 32, 50_432),
    "12b": (36, 5120, 40, 50_688),
}
"""Size -> layers, features, heads (table 1), and rows of the embedding."""


def pythia(size: str) -> Decoder:
    """One of `PYTHIA`: 70m has 70,426,624 parameters, 12b 11,846,072,320."""
    return _decoder(*PYTHIA[size], activation="gelu")


def gpt_neox_20b() -> Decoder:
    """20,554,567,680 parameters."""
    return _decoder(44, 6144, 64, 50_432, activation="gelu_tanh")


def _decoder(layers: int, embed: int, heads: int, vocab: int, *, activation: str) -> Decoder:
    attention = Attention(heads, heads, embed // heads, bias="all")
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(4 * embed, activation, bias="all"), ParallelTwoNorms()),
        position=Rope(fraction=0.25),
        norm=LayerNorm(),
        head=Untied(),
    )


WIRINGS = {True: ParallelTwoNorms(), False: PreNorm()}
"""By `use_parallel_residual`."""


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    turns = dict(settings.get("rope_parameters") or {})
    told = Settings({"rope_theta": settings.get("rotary_emb_base", 10_000.0)} | dict(settings))
    fraction = turns.get("partial_rotary_factor", told.take("rotary_pct", 0.25))
    embed, heads = told.take("hidden_size"), told.take("num_attention_heads")
    bias = "all" if told.take("attention_bias", True) else "none"
    mlp = Plain(told.take("intermediate_size"), told.choose("hidden_act", ACTIVATIONS), bias="all")
    wiring = WIRINGS[told.take("use_parallel_residual", True)]
    model = Decoder(
        vocab=told.take("vocab_size"),
        embed=embed,
        layers=told.take("num_hidden_layers"),
        block=Block(Attention(heads, heads, embed // heads, bias=bias), mlp, wiring),
        position=rope.read(told, fraction),
        norm=LayerNorm(told.take("layer_norm_eps", 1e-5)),
        head=Tied() if told.take("tie_word_embeddings", False) else Untied(),
    )
    # The base is taken above; the rest is of training, of another head, or a limit of memory.
    told.finish(
        "attention_dropout", "classifier_dropout", "hidden_dropout", "max_position_embeddings", "rotary_emb_base"
    )
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    block, turns = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(turns, Rope)):
        raise UsageError(OTHER)
    settings = {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": block.mlp.width,
        "hidden_act": named(block.mlp.activation),
        "attention_bias": block.attention.bias == "all",
        "use_parallel_residual": isinstance(block.wiring, ParallelTwoNorms),
        "layer_norm_eps": model.norm.epsilon,
        "rope_parameters": rope.write(turns, length) | {"partial_rotary_factor": turns.fraction},
        "tie_word_embeddings": isinstance(model.head, Tied),
        "max_position_embeddings": length,
    }
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "gpt_neox.layers.{layer}."
QKV = ("query", "key", "value")
TABLE: Table = (
    entry("gpt_neox.embed_in.weight", "embedding.kernel", "v e", "v e"),
    Entry(
        f"{THERE}attention.query_key_value.weight",
        "(h + d) e",
        tuple(Part(f"{HERE}attention.{name}.kernel", "e h d") for name in QKV),
    ),
    Entry(
        f"{THERE}attention.query_key_value.bias",
        "(h + d)",
        tuple(Part(f"{HERE}attention.{name}.bias", "h d") for name in QKV),
    ),
    entry(f"{THERE}attention.dense.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{THERE}attention.dense.bias", f"{HERE}attention.out.bias"),
    entry(f"{THERE}mlp.dense_h_to_4h.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    entry(f"{THERE}mlp.dense_h_to_4h.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}mlp.dense_4h_to_h.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.dense_4h_to_h.bias", f"{HERE}mlp.down.bias"),
    *norms(f"{THERE}input_layernorm", f"{HERE}attention_norm"),
    *norms(f"{THERE}post_attention_layernorm", f"{HERE}mlp_norm"),
    *norms("gpt_neox.final_layer_norm", "norm"),
    entry("embed_out.weight", "head.kernel", "v e", "e v"),
)
DERIVED = (
    r"embed_out\.weight",
    r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
)
"""Tensors of published files that follow from the others; the head only where it is tied."""
OMITTED = "gpt_neox."
"""Some files leave this out of all names but the head's."""
