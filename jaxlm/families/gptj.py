"""GPT-J-6B (Wang and Komatsuzaki 2021): sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Parallel, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Untied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope
from jaxlm.families import rope
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("gptj",)
OTHER = (
    "this model is no GPT-J: parallel blocks of one norm, plain gelu, RoPE in neighbors, LayerNorm, biases in "
    "MLPs and the untied head only"
)


def gptj_6b() -> Decoder:
    """6,050,882,784 parameters."""
    return architecture(28, 4096, 16, rotated=64, vocab=50_400)


def architecture(
    layers: int,
    embed: int,
    heads: int,
    *,
    rotated: int,
    vocab: int,
    width: int | None = None,
    epsilon: float = 1e-5,
) -> Decoder:
    """GPT-J's; MLPs have 4 * `embed` features where not told, and the first `rotated` of a head are turned."""
    head = embed // heads
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, heads, head), Plain(width or 4 * embed, bias="all"), Parallel()),
        position=Rope(fraction=rope.share(rotated, head), pairs="interleaved"),
        norm=LayerNorm(epsilon),
        head=Untied(bias="all"),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    model = decoder(told)
    told.finish()
    return model


def decoder(told: Settings) -> Decoder:
    """What GPT-J and its relatives have in common. Raises Failure."""
    told.expect("activation_function", "gelu_new")
    told.expect("tie_word_embeddings", False)
    told.expect("scale_attn_weights", True)
    told.expect("rotary", True)
    # Positions are turned, not looked up: their number is a limit of memory.
    told.take("n_positions", None)
    return architecture(
        told.take("n_layer"),
        told.take("n_embd"),
        told.take("n_head"),
        rotated=told.take("rotary_dim"),
        vocab=told.take("vocab_size"),
        width=told.take("n_inner", None),
        epsilon=told.take("layer_norm_epsilon", 1e-5),
    )


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = common(model, length, OTHER) | {"model_type": "gptj", "architectures": ["GPTJForCausalLM"]}
    return agreed(read, settings, model, OTHER)


def common(model: Decoder, length: int, other: str) -> dict[str, Any]:
    """The settings that GPT-J and its relatives have in common. Raises UsageError with the text `other`."""
    block, turns = model.block, model.position
    if not (isinstance(block, Block) and isinstance(block.mlp, Plain) and isinstance(turns, Rope)):
        raise UsageError(other)
    return {
        "vocab_size": model.vocab,
        "n_embd": model.embed,
        "n_layer": model.layers,
        "n_head": block.attention.heads,
        "n_inner": block.mlp.width,
        "n_positions": length,
        "rotary_dim": int(turns.fraction * block.attention.head),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm.epsilon,
        "tie_word_embeddings": False,
    }


HERE, THERE = "blocks.{layer}.", "transformer.h.{layer}."
QKV = ("query", "key", "value")
TABLE: Table = (
    entry("transformer.wte.weight", "embedding.kernel", "v e", "v e"),
    *norms(f"{THERE}ln_1", f"{HERE}attention_norm"),
    *(
        entry(f"{THERE}attn.{name[0]}_proj.weight", f"{HERE}attention.{name}.kernel", "(h d) e", "e h d")
        for name in QKV
    ),
    entry(f"{THERE}attn.out_proj.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"),
    entry(f"{THERE}mlp.fc_in.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    entry(f"{THERE}mlp.fc_in.bias", f"{HERE}mlp.up.bias"),
    entry(f"{THERE}mlp.fc_out.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    entry(f"{THERE}mlp.fc_out.bias", f"{HERE}mlp.down.bias"),
    *norms("transformer.ln_f", "norm"),
    entry("lm_head.weight", "head.kernel", "v e", "e v"),
    entry("lm_head.bias", "head.bias"),
)
DERIVED = (r"transformer\.h\.\d+\.attn\.(bias|masked_bias|causal_mask)",)
"""Tensors of published files that follow from the others."""
OMITTED = "transformer."
"""Some files leave this out of all names but the head's."""
