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
    """A key and a parameter format, for the part of a model at `path`; `layer` is its number in a stack."""

    key: Key[Array, ""]
    dtype: str = "float32"
    path: str = ""
    layer: Int[Array, ""] | int | None = None

    def at(self, name: str) -> Initial:
        """For a named part."""
        return dataclasses.replace(self, path=f"{self.path}{name}.")

    def number(self, layer: Int[Array, ""] | int) -> Initial:
        """For a layer of a stack."""
        return dataclasses.replace(self, layer=layer)

    def draw(self, name: str) -> Key[Array, ""]:
        """The key of a parameter. Names are joined first: every fold is a program to compile."""
        key = jax.random.fold_in(self.key, site(self.path + name))
        return key if self.layer is None else jax.random.fold_in(key, self.layer)

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
        kernel = std * jax.random.normal(self.draw(name), shape, jnp.float32)
        zeros = jnp.zeros(shape[inputs:], self.dtype) if bias else None
        return Dense(kernel.astype(self.dtype), zeros, axes, inputs)
