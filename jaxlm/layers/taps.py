"""Named activations, returned only when asked for."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.contracts import Call


def tapped(call: Call, **activations: Float[Array, "..."]) -> dict[str, Array]:
    """Those of the activations that `call.taps` names; "name.mean_square" is a sum over
    all devices, as every metric is: of each device's mean square by their number.
    """
    taps: dict[str, Array] = {}
    for name, value in activations.items():
        if name in call.taps:
            taps[name] = value
        if f"{name}.mean_square" in call.taps:
            taps[f"{name}.mean_square"] = jnp.mean(jnp.square(value.astype(jnp.float32))) / call.layout.parts()
    return taps
