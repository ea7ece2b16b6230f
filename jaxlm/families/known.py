"""The families that models are exchanged with, by the `model_type` of their config.json."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Model
from jaxlm.config.recurrent import Rwkv4
from jaxlm.config.suggest import nearest
from jaxlm.families import (
    albert,
    bart,
    bert,
    bloom,
    codegen,
    deberta,
    distilbert,
    electra,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_bigcode,
    gpt_neox,
    gptj,
    llama,
    mixtral,
    modernbert,
    mt5,
    olmo2,
    opt,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    rwkv,
    starcoder2,
    t5,
)
from jaxlm.families.table import Table

DECODERS = (
    llama,
    qwen2,
    phi3,
    gpt2,
    gpt_bigcode,
    mixtral,
    opt,
    qwen3,
    gpt_neox,
    gptj,
    codegen,
    falcon,
    gemma,
    gemma2,
    gemma3,
    bloom,
    olmo2,
    qwen3_moe,
    starcoder2,
)
ENCODERS = (bert, roberta, distilbert, electra, albert, modernbert, deberta)
ENCODER_DECODERS = (t5, mt5, bart)
ALL = (*DECODERS, *ENCODERS, *ENCODER_DECODERS, rwkv)
FAMILIES: dict[str, ModuleType] = {name: family for family in ALL for name in family.MODEL_TYPES}
"""Each has `read`, `write`, `TABLE` (or one for each kind of wiring, or what makes one for a model), `DERIVED` and
`OMITTED`, and some have `ALIASES` or `ZERO`.
"""


def family(model_type: str) -> ModuleType:
    """The family of a `model_type`. Raises Failure that names the known ones, the nearest first."""
    if model_type not in FAMILIES:
        names = ", ".join(nearest(model_type, list(FAMILIES), len(FAMILIES)))
        raise Failure(f"config.json: model_type {model_type!r} is not known here; nearest first: {names}")
    return FAMILIES[model_type]


def table(kind: ModuleType, model: Model) -> Table:
    """How a family names the tensors of a model that it has."""
    if callable(kind.TABLE):
        return kind.TABLE(model)
    return kind.TABLE[type(model.block.wiring)] if isinstance(kind.TABLE, dict) else kind.TABLE


def families(model: Model) -> tuple[ModuleType, ...]:
    """Those of this kind of model. Raises UsageError where there are none."""
    match model:
        case Decoder():
            return DECODERS
        case Encoder():
            return ENCODERS
        case EncoderDecoder():
            return ENCODER_DECODERS
        case Rwkv4():
            return (rwkv,)
        case _:
            raise UsageError(
                f"{type(model).__name__}: of all models only transformers and RWKV-4 are exchanged yet"
            )


def published(model: Model, length: int, model_type: str = "") -> tuple[ModuleType, dict[str, Any]]:
    """The family of this `model_type`, or the first that has such a model, and its config.json.

    `length` is the longest row it is meant for. Raises UsageError that says what each of them lacks.
    """
    own, reasons = families(model), []
    if isinstance(model, Decoder) and model.ahead:
        raise UsageError(
            f"model.ahead is {model.ahead}: no format that is known here has room for heads of further tokens; "
            "use the run itself, or train one with model.ahead 0"
        )
    if model_type:
        if (asked := family(model_type)) not in own:
            raise UsageError(f"model_type {model_type!r} has no {type(model).__name__.lower()}s")
        own = (asked,)
    for one in own:
        try:
            return one, one.write(model, length)
        except UsageError as error:
            reasons.append(f"  {error}")
    raise UsageError("no family that is known here has such a model:\n" + "\n".join(dict.fromkeys(reasons)))
