"""Scales that move from activations into weights: the model computes the same, and rounds otherwise.

x W = (x / s) (s W) for a scale s of each input. What makes x divides it by s: the norm before (its scale, and its
bias where it has one), or the weight before where nothing but products lies in between.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import norms
from jaxlm.layers.block import Block
from jaxlm.layers.norms import Norm
from jaxlm.layers.projection import Dense
from jaxlm.layers.weights import weights_of
from jaxlm.quantize.calibrate import Place, like, matrix, plain
from jaxlm.quantize.readers import Reader, readers, with_weights

Scale = Float[Array, "inputs"]


def blocks_of(model: Any) -> None:
    """Nothing, if the layers of a model are blocks whose scales can be moved. Raises UsageError by name."""
    layers = model.blocks.prefix + model.blocks.period + model.blocks.suffix
    if not all(isinstance(layer, Block) for layer in layers):
        raise UsageError(
            f"{type(model.config).__name__} mixes a token with the one before it, or its gates read the same norm: "
            "scales are moved in transformers' blocks only; use gptq, or round to nearest"
        )
    if isinstance(getattr(model.config, "position", None), config.Disentangled):
        raise UsageError(
            "model.position is Disentangled: queries and keys are made of distances by the same weights"
        )


def folded(place: Place, reader: Reader, scale: Scale) -> Block:
    """The layer with what `reader` reads divided by the scale, and its weights multiplied. It computes the same.

    Raises UsageError where nothing before it takes a scale, and for weights that are no matrices.
    """
    if reader.source is None:
        raise UsageError(f"{place.full(reader.tap)}: {reader.why}")
    layer, weights = place.layer, weights_of(place.layer)
    new = {name: scaled(plain(place, name, weights[name]), scale) for name in reader.weights}
    if reader.source in weights:
        source = new.get(reader.source, weights[reader.source])
        new[reader.source] = _divided_outputs(plain(place, reader.source, source), scale)
        return with_weights(layer, new)
    norm = divided(getattr(layer, reader.source), scale)
    return dataclasses.replace(with_weights(layer, new), **{reader.source: norm})


def scaled(weight: Dense, scale: Scale) -> Dense:
    """The weight with each input's numbers times the scale."""
    return like(weight, matrix(weight) * scale[:, None])


def _divided_outputs(weight: Dense, scale: Scale) -> Dense:
    """The weight with each output, and its bias, divided by the scale."""
    bias = weight.bias
    if bias is not None:
        bias = (bias.astype(jnp.float32) / scale.reshape(bias.shape)).astype(bias.dtype)
    return like(weight, matrix(weight) / scale[None]).replace(bias=bias)


def divided(norm: Norm, scale: Scale) -> Norm:
    """The norm whose output is divided by the scale."""

    def over(vector: Array) -> Array:
        return (vector.astype(jnp.float32) / scale).astype(vector.dtype)

    match norm:
        case norms.LayerNorm():
            return norm.replace(scale=over(norm.scale), bias=over(norm.bias))
        case norms.ZeroCentered():
            one_more = 1 + norm.scale.astype(jnp.float32)
            return norm.replace(scale=(one_more / scale - 1).astype(norm.scale.dtype))
        case norms.RMSNorm() | norms.Unbiased():
            return norm.replace(scale=over(norm.scale))


def normed_readers(layer: Block) -> list[Reader]:
    """The readers of a norm, which takes a scale exactly; refused by name where there are none."""
    return [one for one in readers(layer) if one.source is not None and one.source.endswith("_norm")]
