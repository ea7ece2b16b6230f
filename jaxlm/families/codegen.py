"""CodeGen (Nijkamp et al. 2022, arXiv:2203.13474): GPT-J with queries, keys and values in one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.errors import UsageError
from jaxlm.config.model import Decoder
from jaxlm.families import gptj
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Entry, Part, Table

MODEL_TYPES = ("codegen",)
OTHER = "this model is no CodeGen: a GPT-J whose heads divide by 4"
SHARDS = 4
"""Devices that the published models were trained on, each with its own queries, values and keys."""

SIZES = {"350m": (20, 1024, 16, 32), "2b": (32, 2560, 32, 64), "6b": (33, 4096, 16, 64), "16b": (34, 6144, 24, 64)}
"""Size -> layers, features, heads, features of a head that are turned."""


def codegen(size: str) -> Decoder:
    """350m, 2b, 6b or 16b: 356,712,448, 2,779,356,160, 7,064,213,504 and 16,032,155,648 parameters."""
    layers, embed, heads, rotated = SIZES[size]
    return gptj.architecture(layers, embed, heads, rotated=rotated, vocab=51_200)


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    model = gptj.decoder(told)
    told.finish("n_ctx")
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give, for rows of `length`. Raises UsageError for any other."""
    settings = gptj.common(model, length, OTHER)
    if settings["n_head"] % SHARDS:
        raise UsageError(OTHER)
    settings |= {"model_type": "codegen", "architectures": ["CodeGenForCausalLM"], "n_ctx": length}
    return agreed(read, settings, model, OTHER)


HERE, THERE = gptj.HERE, gptj.THERE
SEPARATE = tuple(f"{THERE}attn.{name[0]}_proj.weight" for name in gptj.QKV)
TABLE: Table = (
    *(one for one in gptj.TABLE if one.name not in SEPARATE),
    Entry(
        f"{THERE}attn.qkv_proj.weight",
        f"({SHARDS} + h d) e",
        tuple(Part(f"{HERE}attention.{name}.kernel", f"e ({SHARDS} h) d") for name in ("query", "value", "key")),
    ),
)
DERIVED, OMITTED = gptj.DERIVED, gptj.OMITTED
