"""Root mean squares by layer: what tells an instability before the loss does."""

from __future__ import annotations

from math import sqrt

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxlm.layers.names import flatten

TAPS = ("attention.mean_square", "mlp.mean_square", "residual.mean_square")
"""Activations that a telemetry step taps."""


def observe(parameters: PyTree, gradients: PyTree, updates: PyTree) -> dict[str, Array]:
    """Root mean square of each leaf of each tree; one value a layer for leaves stacked over layers."""
    trees = {"parameter": parameters, "gradient": gradients, "update": updates}
    return {
        f"{kind}.{name}": _rms(leaf, stacked=".period." in name)
        for kind, tree in trees.items()
        for name, leaf in flatten(tree).items()
    }


def _rms(leaf: Float[Array, "..."], *, stacked: bool) -> Float[Array, "..."]:
    axes = tuple(range(1 if stacked else 0, leaf.ndim))
    return jnp.sqrt(jnp.mean(jnp.square(leaf.astype(jnp.float32)), axis=axes))


def readable(metrics: dict[str, Array], micro_batches: int) -> dict[str, float | list[float]]:
    """The telemetry of a step's metrics, as root mean squares; taps are sums over micro-batches of mean squares."""
    kinds = ("parameter.", "gradient.", "update.", "tap.")
    chosen = {name: value for name, value in metrics.items() if name.startswith(kinds)}
    values = {name: value.tolist() for name, value in jax.device_get(chosen).items()}
    taps = {name: value for name, value in values.items() if name.startswith("tap.")}
    roots = {
        name.replace(".mean_square", ".rms"): jax.tree.map(lambda v: sqrt(v / micro_batches), value)
        for name, value in taps.items()
    }
    return {name: value for name, value in values.items() if name not in taps} | roots
