"""What a calibration keeps of an activation: sums over tokens that are not padding, as running means in float32."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

Inputs = Float[Array, "token inputs"]
Real = Bool[Array, "token"]
Found = TypeVar("Found")


@runtime_checkable
class Statistic(Protocol):
    """Of some tokens, and joined with that of others: the same as of all of them."""

    @classmethod
    def of(cls: type[Found], x: Inputs, real: Real) -> Found:
        """Of the tokens that are `real`; the others may hold anything, infinities too."""
        ...

    def joined(self: Found, other: Found) -> Found:
        """Of the tokens of both."""
        ...


@struct.dataclass
class Gram:
    """The mean of x x^T over tokens: what the squared error of a product with rounded weights depends on."""

    tokens: Float[Array, ""]
    mean: Float[Array, "inputs inputs"]

    @classmethod
    def of(cls, x: Inputs, real: Real) -> Gram:
        """See `Statistic`. Summed in float32 on every backend."""
        x, count = _kept(x, real)
        total = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)
        return cls(count, total / jnp.maximum(count, 1))

    def joined(self, other: Gram) -> Gram:
        """See `Statistic`."""
        return Gram(self.tokens + other.tokens, _mean(self.tokens, self.mean, other.tokens, other.mean))


@struct.dataclass
class Sizes:
    """The largest and the mean |x| of each input."""

    tokens: Float[Array, ""]
    largest: Float[Array, "inputs"]
    mean: Float[Array, "inputs"]

    @classmethod
    def of(cls, x: Inputs, real: Real) -> Sizes:
        """See `Statistic`."""
        x, count = _kept(x, real)
        size = jnp.abs(x)
        return cls(count, jnp.max(size, axis=0), jnp.sum(size, axis=0) / jnp.maximum(count, 1))

    def joined(self, other: Sizes) -> Sizes:
        """See `Statistic`."""
        mean = _mean(self.tokens, self.mean, other.tokens, other.mean)
        return Sizes(self.tokens + other.tokens, jnp.maximum(self.largest, other.largest), mean)


def _kept(x: Inputs, real: Real) -> tuple[Inputs, Float[Array, ""]]:
    """Zeros for padding, whatever stands there, and the number of tokens."""
    return jnp.where(real[:, None], x.astype(jnp.float32), 0.0), jnp.sum(real, dtype=jnp.float32)


def _mean(count: Array, mean: Array, more: Array, other: Array) -> Array:
    """The mean of both, by their counts: no sum grows with the number of batches."""
    share = more / jnp.maximum(count + more, 1)
    return mean + share * (other - mean)


def squared_error(gram: Float[Array, "inputs inputs"], difference: Float[Array, "inputs outputs"]) -> Array:
    """The mean over tokens of |x difference|^2, summed over outputs: [], from the mean of x x^T."""
    product = jnp.matmul(gram, difference, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(product * difference), 0.0)
