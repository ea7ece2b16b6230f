"""RWKV (Peng et al. 2023, arXiv:2305.13048; 2024, arXiv:2404.05892; 2025, arXiv:2503.14456): sizes of versions 4 to
7; settings and tensors of version 4, the only one that transformers has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import LayerNorm
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7
from jaxlm.families.settings import Settings
from jaxlm.families.table import Table, entry, norms

MODEL_TYPES = ("rwkv",)
PILE, WORLD = 50_277, 65_536
"""Tokens of GPT-NeoX's tokenizer, and of RWKV's own."""
SIZES4 = {
    "169m": (12, 768),
    "430m": (24, 1024),
    "1.5b": (24, 2048),
    "3b": (32, 2560),
    "7b": (32, 4096),
    "14b": (40, 5120),
}
SIZES5 = {"0.4b": (24, 1024), "1.6b": (24, 2048), "3b": (32, 2560), "7b": (32, 4096)}
SIZES6 = {"1.6b": (24, 2048, 32, 64), "3b": (32, 2560, 32, 64), "7b": (32, 4096, 64, 128)}
"""Size -> layers, features, ranks of shifts and decays."""
SIZES7 = {
    "0.1b": (12, 768, 64, 32, 128),
    "0.4b": (24, 1024, 64, 32, 128),
    "1.5b": (24, 2048, 96, 64, 256),
    "2.9b": (32, 2560, 96, 64, 320),
}
"""Size -> layers, features, ranks of decays and rates, of values, of gates."""


def rwkv4(size: str) -> Rwkv4:
    """The models of the Pile: 169m (169,342,464 parameters), 430m, 1.5b, 3b, 7b or 14b."""
    layers, embed = SIZES4[size]
    return Rwkv4(PILE, embed, layers, 4 * embed)


def _three_and_a_half(embed: int) -> int:
    """Hidden features of the channel mix in versions 5 and 6, a multiple of 32."""
    return 7 * embed // 2 // 32 * 32


def rwkv5(size: str) -> Rwkv5:
    """Eagle: 0.4b, 1.6b (1.5b in the paper), 3b or 7b."""
    layers, embed = SIZES5[size]
    return Rwkv5(WORLD, embed, layers, width=_three_and_a_half(embed))


def rwkv6(size: str) -> Rwkv6:
    """Finch: 1.6b, 3b or 7b."""
    layers, embed, mix, decay = SIZES6[size]
    return Rwkv6(WORLD, embed, layers, width=_three_and_a_half(embed), mix_rank=mix, decay_rank=decay)


def rwkv7(size: str) -> Rwkv7:
    """Goose: 0.1b, 0.4b, 1.5b or 2.9b."""
    layers, embed, decay, value, gate = SIZES7[size]
    ranks = {"decay_rank": decay, "rate_rank": decay, "value_rank": value, "gate_rank": gate}
    return Rwkv7(WORLD, embed, layers, width=4 * embed, **ranks)


def read(settings: Mapping[str, Any]) -> Rwkv4:
    """The model of a config.json. Raises Failure for settings that are missing or not known.

    `rescale_every` halves the stream, for 16 bits, where the norms after it undo that: it is no part of the model.
    """
    told = Settings(settings)
    embed = told.take("hidden_size")
    told.expect("attention_hidden_size", embed, None)
    # transformers gives the last norm none but this
    told.expect("layer_norm_epsilon", 1e-5)
    model = Rwkv4(
        told.take("vocab_size"),
        embed,
        told.take("num_hidden_layers"),
        told.take("intermediate_size", 4 * embed),
        LayerNorm(1e-5),
        told.choose("tie_word_embeddings", {True: Tied(), False: Untied()}, False),
    )
    told.finish("context_length", "max_position_embeddings", "rescale_every")
    return model


def write(model: Rwkv4, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other."""
    settings = {
        "model_type": "rwkv",
        "architectures": ["RwkvForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": model.embed,
        "attention_hidden_size": model.embed,
        "intermediate_size": model.width,
        "num_hidden_layers": model.layers,
        "layer_norm_epsilon": model.norm.epsilon,
        "context_length": length,
        "rescale_every": 0,
        "tie_word_embeddings": isinstance(model.head, Tied),
    }
    try:
        same = read(settings) == dataclasses.replace(model, dropout=0.0)
    except Failure:
        same = False
    if not same:
        raise UsageError("this RWKV-4 is not transformers': norms with epsilon 1e-5, a head without cap and bias")
    return settings


HERE, THERE = "blocks.{layer}.", "rwkv.blocks.{layer}."
ATTENTION, FEED_FORWARD = f"{THERE}attention.", f"{THERE}feed_forward."


def _mix(theirs: str, ours: str) -> Table:
    """A token shift, which has two dimensions of length one in front there; each needs a name of its own."""
    return (entry(theirs, f"{HERE}{ours}.mix", "1 01 n", "(1 01 n)"),)


def _matrix(theirs: str, ours: str) -> Table:
    return (entry(f"{theirs}.weight", f"{HERE}{ours}.kernel", "o i", "i o"),)


TABLE: Table = (
    entry("rwkv.embeddings.weight", "embedding.kernel", "v e", "v e"),
    *norms("rwkv.blocks.0.pre_ln", "embedding_norm"),
    *norms(f"{THERE}ln1", f"{HERE}time_norm"),
    *norms(f"{THERE}ln2", f"{HERE}channel_norm"),
    entry(f"{ATTENTION}time_decay", f"{HERE}decay.log_decay"),
    entry(f"{ATTENTION}time_first", f"{HERE}decay.bonus"),
    *_mix(f"{ATTENTION}time_mix_key", "key_shift"),
    *_mix(f"{ATTENTION}time_mix_value", "value_shift"),
    *_mix(f"{ATTENTION}time_mix_receptance", "receptance_shift"),
    *_matrix(f"{ATTENTION}key", "key"),
    *_matrix(f"{ATTENTION}value", "value"),
    *_matrix(f"{ATTENTION}receptance", "receptance"),
    *_matrix(f"{ATTENTION}output", "out"),
    *_mix(f"{FEED_FORWARD}time_mix_key", "channel_key_shift"),
    *_mix(f"{FEED_FORWARD}time_mix_receptance", "channel_receptance_shift"),
    *_matrix(f"{FEED_FORWARD}key", "up"),
    *_matrix(f"{FEED_FORWARD}value", "down"),
    *_matrix(f"{FEED_FORWARD}receptance", "channel_receptance"),
    *norms("rwkv.ln_out", "norm"),
    entry("head.weight", "head.kernel", "v e", "e v"),
)
DERIVED = (r"head\.weight",)
"""Tensors of published files that follow from the others."""
OMITTED = "rwkv."
"""Some files leave this out of all names."""
