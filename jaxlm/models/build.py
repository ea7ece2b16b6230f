"""From a config to a model with initial parameters."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Key

from jaxlm import config
from jaxlm.config import Precision
from jaxlm.layers.axes import shardings
from jaxlm.layers.initial import Initial
from jaxlm.models.decoder import initial_decoder
from jaxlm.models.encoder import initial_encoder
from jaxlm.models.encoder_decoder import initial_encoder_decoder
from jaxlm.models.rwkv import initial_rwkv
from jaxlm.parallel.layout import Layout


def build(model: Any, key: Key[Array, ""], precision: Precision = Precision()) -> Any:
    """A model with initial parameters; pure, so that `jax.eval_shape` and `jax.jit` take it."""
    init = Initial(key, precision.parameters)
    match model:
        case config.Decoder():
            return initial_decoder(model, init)
        case config.Encoder():
            return initial_encoder(model, init)
        case config.EncoderDecoder():
            return initial_encoder_decoder(model, init)
        case config.Rwkv4() | config.Rwkv5() | config.Rwkv6() | config.Rwkv7():
            return initial_rwkv(model, init)
        case _:
            raise TypeError(f"{type(model).__name__} is not a model config")


def build_sharded(model: Any, key: Key[Array, ""], layout: Layout, precision: Precision = Precision()) -> Any:
    """The same, each parameter made on the devices that store it."""

    def make(key: Key[Array, ""]) -> Any:
        return build(model, key, precision)

    places = shardings(jax.eval_shape(make, key), layout)
    return jax.jit(make, out_shardings=places)(key)
