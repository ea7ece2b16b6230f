"""AWQ: what large activations meet is rounded more finely, by scales that are searched for (arXiv:2306.00978).

Weights that read one activation x get one scale for each input, s = mean|x|^r divided by sqrt(max s * min s). The
exponent r is that of 0, 1/20 ... 1 with which rounding changes least what comes out: of query, key and value what
attention does, of gate and up what the mlp does, of out and down what they do, as in the released code. All of it
is computed: no proxy stands for it. What makes x takes 1/s (`quantize.fold`). Where nothing can (heads that
share values, an activation that is not linear), s is 1. Then the range of each group of each output is cut to where
its product loses least, in steps of 1/20 to half of it; not of query and key, whose products are multiplied.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxlm.config.quantization import Format, Fp8, Integers, Rounded, groups
from jaxlm.layers.block import Block
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.weights import weights_of
from jaxlm.quantize import grid
from jaxlm.quantize.calibrate import Place, Say, each_layer, like, matrix, plain, real, reported
from jaxlm.quantize.fold import blocks_of, folded
from jaxlm.quantize.moments import Gram, Sizes, squared_error
from jaxlm.quantize.readers import Reader, readers, with_weights
from jaxlm.quantize.rounding import Choose, Chosen, Error, round_layers
from jaxlm.quantize.rules import format_of

Matrix = Float[Array, "inputs outputs"]
EXPONENTS = 20
SHRUNK = 10
"""Ranges of a group that are tried: 1, 19/20 ... 11/20 of the largest."""
LEAST = 1e-4
UNCLIPPED = ("attention.query", "attention.key")


def awq(
    model: Any,
    rows: Tokens,
    call: Call,
    quantization: Rounded,
    *,
    searched: int = 4,
    batch: int = 4,
    say: Say = print,
) -> tuple[Any, list[Error]]:
    """The model with scales moved and ranges cut as AWQ does, rounded to nearest, and what each weight has lost.

    Exponents are chosen by about `searched` of the rows, which are gone through 21 times a branch; all else by all.
    `Error.nearest` is of weights whose scales have moved. Raises UsageError as `awq_scaled` and
    `rounding.round_layers` do.
    """
    blocks_of(model)

    def method(place: Place, tap: str, fitted: Gram, checked: Gram) -> Choose:
        def choose(name: str, matrix: Matrix, format: Format) -> Chosen:
            cut = matrix if name in UNCLIPPED else clipped(matrix, fitted.mean, format)
            scales = grid.fit(cut, format)
            return grid.codes(cut, format, scales), scales

        return choose

    prepare = _Scaling(quantization, searched, say)
    return round_layers(model, rows, call, quantization, method, prepare=prepare, batch=batch, say=say)


def awq_scaled(
    model: Any,
    rows: Tokens,
    call: Call,
    quantization: Rounded,
    *,
    searched: int = 4,
    batch: int = 4,
    say: Say = print,
) -> Any:
    """The model, which computes the same, with the scales that AWQ finds for this quantization: for other codes.

    Raises UsageError for models that are not made of blocks, weights that are no matrices, and as `each_layer`.
    """
    blocks_of(model)
    return each_layer(model, rows, call, _Scaling(quantization, searched, say), batch=batch, say=say)


class _Scaling:
    """A layer with its scales moved; says once what cannot be."""

    def __init__(self, quantization: Rounded, searched: int, say: Say):
        self.quantization, self.searched, self.say = quantization, searched, say
        self.said: set[tuple[str, str]] = set()

    def __call__(self, place: Place) -> Block:
        for reader in readers(place.layer):
            formats = tuple(format_of(place.full(name), self.quantization) for name in reader.weights)
            if not any(formats):
                continue
            if reader.source is None:
                if (reader.tap, reader.why) not in self.said:
                    self.say(f"{place.full(reader.tap)} keeps its scale: {reader.why}")
                self.said.add((reader.tap, reader.why))
                continue
            tried = candidates(place.measured(reader.tap, Sizes).mean)
            errors = _errors(place, reader, tried, formats, self.searched)
            place = place.holding(folded(place, reader, tried[jnp.argmin(errors)]))
        return place.layer


def candidates(size: Float[Array, "inputs"]) -> Float[Array, "step inputs"]:
    """The scales of all exponents, from the mean |x| of each input."""
    exponents = jnp.arange(EXPONENTS + 1)[:, None] / EXPONENTS
    scales = jnp.maximum(size[None] ** exponents, LEAST)
    return scales / jnp.sqrt(jnp.max(scales, axis=1, keepdims=True) * jnp.min(scales, axis=1, keepdims=True))


def _errors(
    place: Place, reader: Reader, scales: Float[Array, "step inputs"], formats: tuple[Format | None, ...], rows: int
) -> Float[Array, "step"]:
    """Squared errors of what comes out, for each scale."""
    if not reader.branch:
        (name,), (format,) = reader.weights, formats
        weight = plain(place, name, weights_of(place.layer)[name])
        return linear_errors(
            matrix(weight), place.measured(reader.tap, Gram, pieces=place.fitted).mean, scales, format
        )
    for name in reader.weights:
        plain(place, name, weights_of(place.layer)[name])
    stream, total, seen = place.stream, jnp.zeros(len(scales)), 0
    for x, context in zip(stream.hidden, stream.contexts, strict=True):
        found = _branch_errors(place.layer, x, context, scales, place.call, reader.branch, reader.weights, formats)
        total, seen = total + found, seen + len(jax.tree.leaves(x)[0])
        if seen >= rows:
            break
    return total


@functools.partial(jax.jit, static_argnames=("format",))
def linear_errors(
    matrix: Matrix, gram: Float[Array, "inputs inputs"], scales: Float[Array, "step inputs"], format: Format
) -> Float[Array, "step"]:
    """Mean |x (rounded(s W) / s - W)|^2 of one weight, for each s."""
    return jax.lax.map(lambda s: squared_error(gram, _rounded(matrix, s, format) - matrix), scales)


@functools.partial(jax.jit, static_argnames=("call", "branch", "names", "formats"))
def _branch_errors(
    layer: Block,
    x: PyTree,
    context: Any,
    scales: Float[Array, "step inputs"],
    call: Call,
    branch: str,
    names: tuple[str, ...],
    formats: tuple[Format | None, ...],
) -> Float[Array, "step"]:
    """Sums over tokens of |branch - branch with rounded weights|^2."""
    weights, counts = weights_of(layer), real(context)[..., None]
    wanted = reported(layer, x, context, call, branch).astype(jnp.float32)

    def lost(scale: Float[Array, "inputs"]) -> Float[Array, ""]:
        new = {
            name: like(weights[name], _rounded(matrix(weights[name]), scale, format))
            for name, format in zip(names, formats, strict=True)
            if format is not None
        }
        found = reported(with_weights(layer, new), x, context, call, branch).astype(jnp.float32)
        return jnp.sum(jnp.where(counts, jnp.square(found - wanted), 0.0))

    return jax.lax.map(lost, scales)


def _rounded(matrix: Matrix, scale: Float[Array, "inputs"], format: Format) -> Matrix:
    return grid.rounded(matrix * scale[:, None], format) / scale[:, None]


@functools.partial(jax.jit, static_argnames=("format",))
def clipped(matrix: Matrix, gram: Float[Array, "inputs inputs"], format: Format) -> Matrix:
    """The matrix, each group of each output cut to the range in which its own product loses least when rounded.

    Numbers of a format that has exponents are not cut, nor a matrix that has one scale.
    """
    if isinstance(format, Fp8) or (isinstance(format, Integers) and format.group == -1):
        return matrix
    count = groups(format, len(matrix))
    size = len(matrix) // count
    apart = grid.by_group(matrix, count)
    own = gram.reshape(count, size, count, size)[jnp.arange(count), :, jnp.arange(count)]
    largest = jnp.max(jnp.abs(apart), axis=1, keepdims=True)

    def cut(step: Float[Array, "..."]) -> Float[Array, "group size outputs"]:
        limit = largest * (1 - step / 20)
        return jnp.clip(apart, -limit, limit)

    def lost(step: Float[Array, ""]) -> Float[Array, "group outputs"]:
        difference = grid.by_group(grid.rounded(cut(step).reshape(matrix.shape), format), count) - apart
        product = jnp.einsum("gij,gjo->gio", own, difference, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(product * difference, axis=1)

    best = jnp.argmin(jax.lax.map(lost, jnp.arange(SHRUNK) * 1.0), axis=0)
    return cut(best[:, None] * 1.0).reshape(matrix.shape)
