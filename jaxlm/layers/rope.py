"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pure functions of given positions."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def frequencies(theta: float, rotated: int) -> np.ndarray:
    """Radians a position for each plane: theta ** (-2 i / rotated), i < rotated / 2 (section 3.2.2).

    Computed in float64 and rounded once to float32.
    """
    planes = np.arange(rotated // 2, dtype=np.float64)
    return (theta ** (-2.0 * planes / rotated)).astype(np.float32)


def rotate(
    x: Float[Array, "row pos heads head"],
    positions: Int[Array, "row pos"],
    radians: Float[np.ndarray, "planes"],
    pairs: Literal["halves", "interleaved"] = "halves",
) -> Float[Array, "row pos heads head"]:
    """Turn each plane of the first 2 * planes features by position * radians (equation 34); the rest pass.

    `pairs` says which features form a plane: (i, i + planes), or (2 i, 2 i + 1). Angles are float32.
    """
    rotated = 2 * radians.shape[0]
    cos, sin = jnp.split(_turns(positions, radians)[:, :, None], 2, axis=-1)
    turned, rest = x[..., :rotated].astype(jnp.float32), x[..., rotated:]
    if pairs == "halves":
        first, second = jnp.split(turned, 2, axis=-1)
    else:
        first, second = turned[..., 0::2], turned[..., 1::2]
    parts = (first * cos - second * sin, first * sin + second * cos)
    if pairs == "halves":
        result = jnp.concatenate(parts, axis=-1)
    else:
        result = jnp.stack(parts, axis=-1).reshape(turned.shape)
    result = result.astype(x.dtype)
    return result if rotated == x.shape[-1] else jnp.concatenate([result, rest], axis=-1)


def _turns(
    positions: Int[Array, "row pos"], radians: Float[np.ndarray, "planes"]
) -> Float[Array, "row pos two_planes"]:
    """Cosines, then sines."""
    angles = positions[..., None].astype(jnp.float32) * radians.reshape(1, 1, -1)
    turns = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def stored(turns: Float[Array, "row pos two_planes"]) -> Float[Array, "row pos two_planes"]:
        # XLA's CPU backend would compute them again for every head and at every use, at ten times the cost of
        # turning; it stores what comes out of a product, and this one is exact.
        return turns @ jnp.eye(turns.shape[-1], dtype=turns.dtype)

    return jax.lax.platform_dependent(turns, cpu=stored, default=lambda turns: turns)
