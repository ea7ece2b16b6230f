"""Rounding a model's weights while rows go through it: what GPTQ, AWQ and rounding to nearest have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Format, Rounded, Rule, Static
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.projection import Weight
from jaxlm.quantize import grid
from jaxlm.quantize.build import with_cache
from jaxlm.quantize.calibrate import Place, Say, each_layer, matrix, plain
from jaxlm.quantize.moments import Gram, Sizes, squared_error
from jaxlm.quantize.ranges import Spread, reach, step
from jaxlm.quantize.readers import in_order, with_weights
from jaxlm.quantize.rules import rule_of, ruled
from jaxlm.quantize.weight import Quantized

Matrix = Float[Array, "inputs outputs"]
Chosen = tuple[Int[Array, "inputs outputs"], grid.Scales]
Choose = Callable[[str, Matrix, Format], Chosen]
"""Of a weight's name within its layer."""
Method = Callable[[Place, str, Gram, Gram], Choose]
"""Of a layer, a tap, and the mean of x x^T there of the rows that weights are fitted to and of those that are
checked, what chooses the codes of a weight that is applied to it.
"""


KEEP = "keep it by a rule, or use activations:dynamic"


@dataclass(frozen=True)
class Error:
    """What a weight has lost: |x (W - rounded W)| / |x W| over the rows that nothing was fitted to.

    x is what the rounded layers before it make.
    """

    name: str
    """In the model's names; those of stacked layers have one name."""
    layer: int
    """From the bottom, counted from 0."""
    error: float
    nearest: float
    """The same of the weight rounded to nearest."""


def to_nearest(place: Place, tap: str, fitted: Gram, checked: Gram) -> Choose:
    """The method of no method."""

    def choose(name: str, matrix: Matrix, format: Format) -> Chosen:
        scales = grid.fit(matrix, format)
        return grid.codes(matrix, format, scales), scales

    return choose


def round_layers(
    model: Any,
    rows: Tokens,
    call: Call,
    quantization: Rounded,
    method: Method,
    *,
    prepare: Callable[[Place], Any] = lambda place: place.layer,
    batch: int = 4,
    say: Say = print,
) -> tuple[Any, list[Error]]:
    """The model with rounded weights, and what each has lost. `prepare` may change a layer beforehand.

    A weight that nothing taps, or that is in no layer, is rounded to nearest, and named. Raises UsageError as
    `each_layer` and `rules.ruled` do, and for weights that are no matrices.
    """
    errors: list[Error] = []
    ruled(lambda name, weight, rule: weight, model, quantization)

    def treat(place: Place) -> Any:
        place = place.holding(prepare(place))
        found = {name: rule_of(place.full(name), quantization) for name in in_order(place.layer)}
        rules = {name: rule for name, rule in found.items() if rule is not None}
        taps = place.taps()
        for tap, names in taps.items():
            if chosen := {name: rules[name] for name in names if name in rules}:
                place, lost = _rounded(place, tap, chosen, method)
                errors.extend(lost)
        place = _untapped(place, taps, rules)
        own = [one for one in errors if one.layer == place.number]
        if own:
            worst = max(own, key=lambda one: one.error)
            say(f"layer {place.number}: {len(own)} weights, the worst {worst.name} {worst.error:.4f}")
        return place.layer

    model = each_layer(model, rows, call, treat, batch=batch, say=say)
    return with_cache(_outside(model, quantization, say), quantization.cache), errors


def _rounded(place: Place, tap: str, rules: dict[str, Rule], method: Method) -> tuple[Place, list[Error]]:
    """The weights that one activation is multiplied with."""
    weights = in_order(place.layer)
    fitted, checked = (place.measured(tap, Gram, pieces=pieces) for pieces in (place.fitted, place.checked))
    choose, new, errors = method(place, tap, fitted, checked), {}, []
    apart = functools.cache(lambda static: step(measured_reach(place, tap, static), static.bits))
    for name, rule in rules.items():
        weight, activations = plain(place, name, weights[name]), rule.activations
        codes, scales = choose(name, matrix(weight), rule.format)
        new[name] = Quantized.from_codes(weight, codes, scales, rule.format, activations)
        if isinstance(activations, Static):
            new[name] = new[name].replace(activation=apart(activations))
        found = _lost(matrix(weight), codes, scales, checked.mean, rule.format)
        errors.append(Error(place.full(name), place.number, *map(float, found)))
    return place.holding(with_weights(place.layer, new)), errors


@functools.partial(jax.jit, static_argnames=("format",))
def _lost(
    matrix: Matrix, codes: Array, scales: grid.Scales, gram: Array, format: Format
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`Error.error` and `Error.nearest`; 0 where the product itself is."""
    whole = jnp.maximum(squared_error(gram, matrix), jnp.finfo(jnp.float32).tiny)
    own = squared_error(gram, grid.values(codes, format, scales) - matrix)
    return jnp.sqrt(own / whole), jnp.sqrt(squared_error(gram, grid.rounded(matrix, format) - matrix) / whole)


def measured_reach(place: Place, tap: str, activations: Static) -> Float[Array, ""]:
    """Where the range of one activation ends, by all rows."""
    sizes = place.measured(tap, Sizes)
    if activations.range == "absmax":
        return reach(sizes, None, activations.range)
    largest, most = jnp.max(sizes.largest), jnp.float32(2 ** (activations.bits - 1) - 1)
    spread = place.measured(tap, Spread, jnp.maximum(largest, 1e-30), most)
    return reach(sizes, spread, activations.range)


def _outside(model: Any, quantization: Rounded, say: Say) -> Any:
    """What rules find outside of the layers. Raises UsageError where its range would have to be known."""

    def one(name: str, weight: Weight, rule: Rule) -> Weight:
        if isinstance(weight, Quantized):
            return weight
        if isinstance(rule.activations, Static):
            raise UsageError(f"in no layer that rows go through: {KEEP}")
        say(f"{name}: in no layer that rows go through, rounded to nearest")
        return Quantized.of(weight, rule.format, rule.activations)

    return ruled(one, model, quantization)


def _untapped(place: Place, taps: dict[str, tuple[str, ...]], rules: dict[str, Rule]) -> Place:
    """Weights whose inputs nothing shows. Raises UsageError where their range would have to be known."""
    weights: dict[str, Weight] = in_order(place.layer)
    tapped = {name for names in taps.values() for name in names}
    new = {}
    for name, rule in ((name, rule) for name, rule in rules.items() if name not in tapped):
        if isinstance(rule.activations, Static):
            raise UsageError(f"{place.full(name)}: no activation leads to it that could be measured; {KEEP}")
        place.say(f"{place.full(name)}, layer {place.number}: no activation leads to it, rounded to nearest")
        new[name] = Quantized.of(plain(place, name, weights[name]), rule.format, rule.activations)
    return place.holding(with_weights(place.layer, new))
