"""Root mean squares by layer: what tells an instability before the loss does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxlm.layers.names import flatten

TAPS = ("attention.rms", "mlp.rms", "residual.rms")
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
    """The telemetry of a step's metrics, as numbers; taps are summed over micro-batches, so divide."""
    kinds = ("parameter.", "gradient.", "update.", "tap.")
    chosen = {name: value for name, value in metrics.items() if name.startswith(kinds)}
    values = {name: value.tolist() for name, value in jax.device_get(chosen).items()}
    return {
        name: jax.tree.map(lambda v: v / micro_batches, value) if name.startswith("tap.") else value
        for name, value in values.items()
    }
