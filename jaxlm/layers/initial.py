"""Initial parameters: one description (name, shape, logical axes, scale) makes each leaf.

A parameter's random numbers are keyed by its name, so that adding or removing another changes nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod, sqrt

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxlm.layers.projection import Dense
from jaxlm.layers.random import site
from jaxlm.parallel.layout import Axes


@dataclass(frozen=True)
class Initial:
    """A key and a parameter format; `at(name)` is the same for a part with that name."""

    key: Key[Array, ""]
    dtype: str = "float32"

    def at(self, name: str | int | Int[Array, ""]) -> Initial:
        """For a named or numbered part."""
        number = site(name) if isinstance(name, str) else name
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, number))

    def dense(
        self,
        name: str,
        shape: tuple[int, ...],
        axes: Axes,
        *,
        inputs: int = 1,
        std: float | None = None,
        scale: float = 1.0,
        bias: bool = False,
    ) -> Dense:
        """A kernel of normal numbers with variance scale^2 / inputs (or std^2), and a zero bias.

        The first `inputs` dimensions are contracted; their product is the number of inputs.
        """
        std = scale / sqrt(prod(shape[:inputs])) if std is None else std
        kernel = std * jax.random.normal(self.at(name).key, shape, jnp.float32)
        zeros = jnp.zeros(shape[inputs:], self.dtype) if bias else None
        return Dense(kernel.astype(self.dtype), zeros, axes, inputs)
