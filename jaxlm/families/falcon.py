"""Falcon (Almazrouei et al. 2023, arXiv:2311.16867): RoPE or ALiBi, parallel blocks of one norm or two, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Parallel, ParallelTwoNorms, Plain, PreNorm, Wiring
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Alibi, Rope
from jaxlm.families import rope
from jaxlm.families.settings import ACTIVATIONS, Settings, agreed, named
from jaxlm.families.table import Entry, Part, Table, entry, norms

MODEL_TYPES = ("falcon",)
OTHER = (
    "this model is no Falcon: one kind of block, plain MLP, LayerNorm, RoPE in halves or ALiBi before scores are "
    "scaled, biases everywhere or nowhere, grouped heads in parallel blocks only"
)

SIZES = {"7b": (32, 4544, 71, 1), "40b": (60, 8192, 128, 8), "180b": (80, 14_848, 232, 8)}
"""Size -> layers, features, heads, key and value heads; the smallest has one norm a block."""


def falcon(size: str) -> Decoder:
    """7b, 40b or 180b: 6,921,720,704, 41,303,293,952 and 178,557,088,768 parameters."""
    layers, embed, heads, kv_heads = SIZES[size]
    wiring = Parallel() if kv_heads == 1 else ParallelTwoNorms()
    attention = Attention(heads, kv_heads, embed // heads)
    return Decoder(
        vocab=65_024,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(4 * embed, "gelu"), wiring),
        position=Rope(),
        norm=LayerNorm(),
        head=Tied(),
    )


def falcon_rw_1b() -> Decoder:
    """1,311,625,216 parameters: sequential, with ALiBi and biases."""
    return Decoder(
        vocab=50_304,
        embed=2048,
        layers=24,
        block=Block(Attention(32, 32, 64, bias="all"), Plain(8192, "gelu", bias="all")),
        position=Alibi(64**-0.5),
        norm=LayerNorm(),
        head=Tied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    embed, heads = told.take("hidden_size"), told.take("num_attention_heads")
    wiring, kv_heads = _grouped(told, heads)
    head, bias = embed // heads, "all" if told.take("bias", False) else "none"
    activation = told.choose("activation", ACTIVATIONS, "gelu")
    turns = rope.read(told)
    model = Decoder(
        vocab=told.take("vocab_size"),
        embed=embed,
        layers=told.take("num_hidden_layers"),
        block=Block(
            Attention(heads, kv_heads, head, bias=bias),
            Plain(told.take("ffn_hidden_size", 4 * embed), activation, bias=bias),
            wiring,
        ),
        position=Alibi(head**-0.5) if told.take("alibi", False) else turns,
        norm=LayerNorm(told.take("layer_norm_epsilon", 1e-5)),
        head=Tied() if told.take("tie_word_embeddings", True) else Untied(),
    )
    # Of training, a limit of memory, and where other code than that of transformers lies.
    told.finish("attention_dropout", "auto_map", "hidden_dropout", "max_position_embeddings")
    return model


def _grouped(told: Settings, heads: int) -> tuple[Wiring, int]:
    """Wiring, and key and value heads. The newer architecture groups heads, the older has one of them or all."""
    multi_query = told.take("multi_query", True)
    if told.take("new_decoder_architecture", False):
        told.expect("parallel_attn", True)
        two = told.choose("num_ln_in_parallel_attn", {1: Parallel(), 2: ParallelTwoNorms()}, 2)
        return two, told.take("num_kv_heads", heads)
    told.expect("num_ln_in_parallel_attn", None, 1)
    wiring = Parallel() if told.take("parallel_attn", True) else PreNorm()
    if multi_query:
        told.take("num_kv_heads", None)
        return wiring, 1
    told.expect("num_kv_heads", None, heads)
    return wiring, heads


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    block, turns = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(turns, Rope | Alibi)):
        raise UsageError(OTHER)
    attention, two = block.attention, isinstance(block.wiring, ParallelTwoNorms)
    newer = two or attention.kv_heads not in (1, attention.heads)
    settings = {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "num_hidden_layers": model.layers,
        "num_attention_heads": attention.heads,
        "num_kv_heads": attention.kv_heads,
        "multi_query": attention.kv_heads == 1,
        "new_decoder_architecture": newer,
        "num_ln_in_parallel_attn": (2 if two else 1) if newer else None,
        "parallel_attn": not isinstance(block.wiring, PreNorm),
        "bias": block.mlp.bias == "all",
        "activation": named(block.mlp.activation),
        "ffn_hidden_size": block.mlp.width,
        "alibi": isinstance(turns, Alibi),
        "layer_norm_epsilon": model.norm.epsilon,
        "tie_word_embeddings": isinstance(model.head, Tied),
        "max_position_embeddings": length,
    }
    if isinstance(turns, Rope):
        settings["rope_parameters"] = rope.write(turns, length)
    return agreed(read, settings, model, OTHER)


HERE, THERE = "blocks.{layer}.", "transformer.h.{layer}."
QKV, OUT = f"{THERE}self_attention.query_key_value", f"{THERE}self_attention.dense"
GROUP = {"query": "(k +) d", "key": "k d", "value": "k d"}
"""A key and value head follows the query heads that it serves."""
COMMON: Table = (
    entry("transformer.word_embeddings.weight", "embedding.kernel", "v e", "v e"),
    Entry(
        f"{QKV}.weight", "(k + d) e", tuple(Part(f"{HERE}attention.{n}.kernel", f"e {g}") for n, g in GROUP.items())
    ),
    Entry(f"{QKV}.bias", "(k + d)", tuple(Part(f"{HERE}attention.{n}.bias", g) for n, g in GROUP.items())),
    entry(f"{OUT}.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{OUT}.bias", f"{HERE}attention.out.bias"),
    entry(f"{THERE}mlp.dense_h_to_4h.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    entry(f"{THERE}mlp.dense_h_to_4h.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}mlp.dense_4h_to_h.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.dense_4h_to_h.bias", f"{HERE}mlp.down.bias"),
    *norms("transformer.ln_f", "norm"),
    entry("lm_head.weight", "head.kernel", "v e", "e v"),
)
ONE = norms(f"{THERE}input_layernorm", f"{HERE}attention_norm")
TABLE: dict[type[Wiring], Table] = {
    Parallel: COMMON + ONE,
    PreNorm: COMMON + ONE + norms(f"{THERE}post_attention_layernorm", f"{HERE}mlp_norm"),
    ParallelTwoNorms: COMMON
    + norms(f"{THERE}ln_attn", f"{HERE}attention_norm")
    + norms(f"{THERE}ln_mlp", f"{HERE}mlp_norm"),
}
DERIVED = (r"lm_head\.weight", r"transformer\.h\.\d+\.self_attention\.(maybe_rotary|rotary_emb)\.inv_freq")
"""Tensors of published files that follow from the others; the head only where it is tied."""
OMITTED = "transformer."
"""Some files leave this out of all names but the head's."""
