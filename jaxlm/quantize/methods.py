"""From a config to a rounded model: rotation, smoothing, then codes by the method that it names."""

from __future__ import annotations

from typing import Any

from jaxlm import config
from jaxlm.config.quantization import Rounded
from jaxlm.layers import random
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.quantize import awq, gptq, hqq, smooth
from jaxlm.quantize.calibrate import Place, Say
from jaxlm.quantize.moments import Gram
from jaxlm.quantize.rotate import rotate
from jaxlm.quantize.rounding import Choose, Error, round_layers, to_nearest


def choose(
    model: Any, rows: Tokens, call: Call, quantization: Rounded, *, batch: int = 4, say: Say = print
) -> tuple[Any, list[Error]]:
    """The rounded model, and what each weight of a layer has lost on these rows.

    Its structure is that of `build.quantized`, where it is rotated of a model as `config.rotation.rotated` says;
    what is in no layer, such as a table of tokens, is rounded to nearest. Raises UsageError and Failure as the
    methods do.
    """
    more: dict[str, Any] = {"batch": batch, "say": say}
    match quantization.rotation:
        case config.Rotated(seed):
            model = rotate(model, random.key(seed, 0, "rotation"))
    match quantization.smoothing:
        case config.Smooth(alpha):
            model = smooth.smooth(model, rows, call, alpha=alpha, batch=batch, say=say)
    match quantization.method:
        case config.Nearest():
            return round_layers(model, rows, call, quantization, to_nearest, **more)
        case config.Hqq():
            return round_layers(model, rows, call, quantization, _half_quadratic, **more)
        case config.Gptq(damp, order):
            return gptq.gptq(model, rows, call, quantization, damp=damp, order=order, **more)
        case config.Awq():
            return awq.awq(model, rows, call, quantization, **more)


def _half_quadratic(place: Place, tap: str, fitted: Gram, checked: Gram) -> Choose:
    """It asks for no activations."""
    return lambda name, matrix, format: hqq.rounded(matrix, format)
