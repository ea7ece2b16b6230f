"""Settings of a config.json: each is used, known to change nothing, or refused; what is written reads the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxlm.config.block import Balance, Block, Moe, Pattern, Shared
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder

WITHOUT_EFFECT = frozenset(
    (
        "_attn_implementation_autoset",
        "_name_or_path",
        "add_cross_attention",
        "architectures",
        "attn_pdrop",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "resid_pdrop",
        "return_dict",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)
"""Settings of any model that do not change what it computes."""


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
"""Their names of activations -> ours; of two the first is written."""


def named(activation: str) -> str:
    """Their name of an activation."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == activation)


class Settings:
    """The settings of one config.json, taken one by one."""

    def __init__(self, settings: Mapping[str, Any]):
        self._left = dict(settings)

    def take(self, name: str, *default: Any) -> Any:
        """A setting; without it the default. Raises Failure where there is neither."""
        if name not in self._left and not default:
            raise Failure(f"config.json has no {name!r}")
        value = self._left.pop(name, None)
        return default[0] if value is None and default else value

    def expect(self, name: str, *values: Any) -> None:
        """A setting that may only have one of these values, or be absent. Raises Failure."""
        if name in self._left and (value := self._left.pop(name)) not in values:
            known = " or ".join(map(repr, values))
            raise Failure(f"config.json: {name} is {value!r}, and only {known} is known here")

    def first(self, *names: str) -> Any:
        """A setting that has several names. Raises Failure where there is none of them."""
        found = [value for name in names if (value := self.take(name, None)) is not None]
        return found[0] if found else self.take(names[0])

    def choose(self, name: str, values: Mapping[Any, Any], *default: Any) -> Any:
        """What a setting, or else the default, means here. Raises Failure where it is missing or means nothing."""
        if (value := self.take(name, *default)) not in values:
            known = " or ".join(map(repr, values))
            raise Failure(f"config.json: {name} is {value!r}, and only {known} is known here")
        return values[value]

    def finish(self, *ignored: str) -> None:
        """Raises Failure for settings that nothing has asked for and that may mean something."""
        rest = {k: v for k, v in self._left.items() if k not in WITHOUT_EFFECT and k not in ignored}
        if rest:
            raise Failure(f"config.json has settings that are not known here: {', '.join(sorted(rest))}")


Exchanged = Decoder | Encoder | EncoderDecoder


def untrained(model: Exchanged) -> Exchanged:
    """The model without what is of its training only: dropout, and what a mixture adds to the loss."""

    def plain(block: Block) -> Block:
        if not isinstance(block.mlp, Moe):
            return block
        mlp = dataclasses.replace(block.mlp, balance=Balance(), router_z=Moe.router_z)
        return dataclasses.replace(block, mlp=mlp)

    match model.block:
        case Pattern(period, prefix, suffix):
            block = Pattern(*(tuple(map(plain, blocks)) for blocks in (period, prefix, suffix)))
        case Shared(period):
            block = Shared(tuple(map(plain, period)))
        case block:
            block = plain(block)
    return dataclasses.replace(model, block=block, dropout=0.0)


def agreed(
    read: Callable[[Mapping[str, Any]], Exchanged],
    settings: dict[str, Any],
    model: Exchanged,
    other: str,
) -> dict:
    """The settings, if `read` makes this model of them. Raises UsageError with the text `other`."""
    try:
        same = read(settings) == untrained(model)
    except Failure:
        same = False
    if not same:
        raise UsageError(other)
    return settings
