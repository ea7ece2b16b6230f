"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pure functions of given positions."""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm import config

Heads = Float[Array, "row pos heads rotated"]
Turns = Float[Array, "row pos 1 planes"]


def frequencies(
    theta: float, rotated: int, scaling: config.position.Scaling = config.Unscaled()
) -> Float[np.ndarray, "planes"]:
    """Radians a position for each plane: theta ** (-2 i / rotated), i < rotated / 2 (section 3.2.2), and scaled.

    Computed in float64 and rounded once to float32.
    """
    planes = np.arange(rotated // 2, dtype=np.float64)
    radians = theta ** (-2.0 * planes / rotated)
    match scaling:
        case config.Interpolated(factor):
            radians = radians / factor
        case config.DynamicNtk(factor, length, target):
            grown = factor * max(target, length) / length - (factor - 1)
            radians = (theta * grown ** (rotated / max(rotated - 2, 1))) ** (-2.0 * planes / rotated)
        case config.Yarn(factor):
            kept = _left_alone(scaling, theta, rotated)
            radians = radians * (kept + (1 - kept) / factor)
        case config.Llama3(factor, length, fast, slow):
            kept = np.clip((length * radians / (2 * np.pi) - slow) / (fast - slow), 0.0, 1.0)
            radians = radians * (kept + (1 - kept) / factor)
    return radians.astype(np.float32)


def _left_alone(yarn: config.Yarn, theta: float, rotated: int) -> Float[np.ndarray, "planes"]:
    """How much of each plane is not interpolated: a ramp in the plane's number, as in the paper's released code."""

    def plane_of(turns: float) -> float:
        return rotated * math.log(yarn.length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(plane_of(yarn.fast)), 0), min(math.ceil(plane_of(yarn.slow)), rotated - 1)
    return 1 - np.clip((np.arange(rotated // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)


def magnitude(scaling: config.position.Scaling) -> float:
    """What queries and keys grow by as they are turned."""
    return 0.1 * math.log(scaling.factor) + 1 if isinstance(scaling, config.Yarn) and scaling.factor > 1 else 1.0


def rotate(
    x: Float[Array, "row pos heads head"],
    positions: Int[Array, "row pos"],
    radians: Float[np.ndarray, "planes"],
    pairs: Literal["halves", "interleaved"] = "halves",
    magnitude: float = 1.0,
) -> Float[Array, "row pos heads head"]:
    """Turn each plane of the first 2 * planes features by position * radians (equation 34); the rest pass.

    `pairs` says which features form a plane: (i, i + planes), or (2 i, 2 i + 1). Angles are float32. What is turned
    is multiplied by `magnitude`.
    """
    rotated = 2 * radians.shape[0]
    cos, sin = jnp.split(magnitude * _turns(positions, radians)[:, :, None], 2, axis=-1)
    result = _turned(x[..., :rotated], cos, sin, pairs)
    return result if rotated == x.shape[-1] else jnp.concatenate([result, x[..., rotated:]], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _turned(x: Heads, cos: Turns, sin: Turns, pairs: str) -> Heads:
    by = {"tpu": _by_product, "default": _by_planes}
    return jax.lax.platform_dependent(
        x, cos, sin, **{name: functools.partial(f, pairs=pairs) for name, f in by.items()}
    )


def _forward(x: Heads, cos: Turns, sin: Turns, pairs: str) -> tuple[Heads, tuple[Turns, Turns]]:
    return _turned(x, cos, sin, pairs), (cos, sin)


def _backward(pairs: str, turns: tuple[Turns, Turns], cotangent: Heads) -> tuple[Heads, Turns, Turns]:
    """A turn back. Angles are given, not trained."""
    cos, sin = turns
    return _turned(cotangent, cos, -sin, pairs), jnp.zeros_like(cos), jnp.zeros_like(sin)


_turned.defvjp(_forward, _backward)


def _by_planes(x: Heads, cos: Turns, sin: Turns, *, pairs: str) -> Heads:
    x32 = x.astype(jnp.float32)
    first, second = jnp.split(x32, 2, axis=-1) if pairs == "halves" else (x32[..., 0::2], x32[..., 1::2])
    parts = (first * cos - second * sin, first * sin + second * cos)
    if pairs == "halves":
        return jnp.concatenate(parts, axis=-1).astype(x.dtype)
    return jnp.stack(parts, axis=-1).reshape(x.shape).astype(x.dtype)


def _by_product(x: Heads, cos: Turns, sin: Turns, *, pairs: str) -> Heads:
    """x cos + partner sin; the other feature of each plane comes from a product with ones and minus ones.

    It is exact, and one pass on a TPU, where slices of half a vector cost several.
    """
    n = x.shape[-1]
    first = np.arange(n // 2) if pairs == "halves" else np.arange(0, n, 2)
    second = first + (n // 2 if pairs == "halves" else 1)
    partner = np.zeros((n, n), np.float32)
    partner[second, first], partner[first, second] = -1, 1
    spread = np.zeros(n, int)
    spread[first] = spread[second] = np.arange(n // 2)
    other = jnp.einsum("rphd,de->rphe", x, jnp.asarray(partner, x.dtype))
    turned = x.astype(jnp.float32) * cos[..., spread] + other.astype(jnp.float32) * sin[..., spread]
    return turned.astype(x.dtype)


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
