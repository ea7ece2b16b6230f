"""What all adapters of a weight have in common."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.layers.products import is_transposed
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import OfBase
from jaxlm.parallel.layout import Axes


class Over(OfBase):
    """An adapter of a weight."""


class Shape:
    """The dimensions of a weight by their part in a product, and the format of its matrix."""

    def __init__(self, weight: Weight):
        """Computes nothing: the weight may be abstract."""
        whole = jax.eval_shape(weight.dense)
        first = len(whole.shape) - len(weight.axes)
        self.stacked = whole.shape[:first]
        self.inputs = whole.shape[first : first + weight.inputs]
        self.outputs = whole.shape[first + weight.inputs :]
        self.dtype = whole.dtype

    @property
    def sides(self) -> tuple[int, int]:
        """Numbers of inputs and of outputs."""
        return prod(self.inputs), prod(self.outputs)

    @property
    def text(self) -> str:
        """As messages name it."""
        return " x ".join(map(str, self.sides))


def check(kind: str, spec: str, adapters: Int[Array, "row"] | None) -> None:
    """Raises UsageError for what one adapter of a weight cannot do."""
    if is_transposed(spec):
        raise UsageError(
            f"{kind} does not take the product with the transpose: leave a tied embedding out of `targets`"
        )
    if adapters is not None:
        raise UsageError(
            "this weight holds one adapter: rows cannot choose among several; see `jaxlm.adapters.several`"
        )


def low_rank(spec: str, inputs: int) -> tuple[str, str]:
    """The einsum through the rank: "rpe,ehd->rphd" is "rpe,eZ->rpZ" and "rpZ,Zhd->rphd"."""
    operands, result = spec.split("->")
    left, kernel = operands.split(",")
    batch = left[: len(left) - inputs]
    return f"{left},{kernel[:inputs]}Z->{batch}Z", f"{batch}Z,Z{kernel[inputs:]}->{result}"


def spread(vector: Float[Array, "..."], axes: Axes, inputs: int) -> Float[Array, "..."]:
    """A number for each output, stacked or not, as it meets the matrix."""
    stacked = vector.ndim - (len(axes) - inputs)
    return jnp.expand_dims(vector, tuple(range(stacked, stacked + inputs)))
