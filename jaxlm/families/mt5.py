"""mT5 (Xue et al. 2020, arXiv:2010.11934), T5 1.1 of 101 languages: sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.model import EncoderDecoder
from jaxlm.families import t5
from jaxlm.families.settings import Settings, agreed

MODEL_TYPES = ("mt5",)
OTHER = "this model is no mT5: that is a T5 with a head of its own"
SIZES = t5.NEWER
VOCAB = 250_112


def mt5(size: str) -> EncoderDecoder:
    """small to xxl: 300,176,768, 582,401,280, 1,229,581,312, 3,742,619,648 and 12,921,057,280 parameters."""
    return t5.newer(size, VOCAB)


def read(settings: Mapping[str, Any]) -> EncoderDecoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings({"decoder_start_token_id": t5.START} | dict(settings))
    told.take("tie_word_embeddings", False)  # later files call all models tied: none is
    return t5.like_t5(told, "MT5", "gated-gelu", tied=False)


def write(model: EncoderDecoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other."""
    return agreed(read, t5.common(model, "MT5", OTHER), model, OTHER)


TABLE, DERIVED, OMITTED = t5.TABLE, t5.DERIVED, t5.OMITTED
