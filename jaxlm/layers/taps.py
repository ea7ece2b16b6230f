"""Named activations, returned only when asked for."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.contracts import Call


def tapped(call: Call, **activations: Float[Array, "..."]) -> dict[str, Array]:
    """Those of the activations that `call.taps` names; "name.rms" is the root mean square over all dimensions."""
    taps: dict[str, Array] = {}
    for name, value in activations.items():
        if name in call.taps:
            taps[name] = value
        if f"{name}.rms" in call.taps:
            taps[f"{name}.rms"] = jnp.sqrt(jnp.mean(jnp.square(value.astype(jnp.float32))))
    return taps
