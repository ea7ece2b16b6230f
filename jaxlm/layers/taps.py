"""What layers return beside activations: named ones, only when asked for, and terms of the loss."""

from __future__ import annotations

from dataclasses import field

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxlm.layers.contracts import Call


@struct.dataclass
class Report:
    """Of one layer, or of a stack: taps stacked over the layers that have them, terms summed."""

    taps: dict[str, Array] = field(default_factory=dict)
    terms: dict[str, Array] = field(default_factory=dict)
    before_last: PyTree = None
    """The residual stream that a stack's last layer was given, where that layer is not scanned with others."""

    @classmethod
    def join(cls, reports: list[Report]) -> Report:
        """The report of a stack from those of its layers, in order."""

        def found(dicts: list[dict[str, Array]]) -> dict[str, list[Array]]:
            names = dict.fromkeys(name for one in dicts for name in one)
            return {name: [one[name] for one in dicts if name in one] for name in names}

        taps, terms = found([one.taps for one in reports]), found([one.terms for one in reports])
        return cls(
            {name: jnp.stack(values) for name, values in taps.items()},
            {name: jnp.sum(jnp.stack(values), axis=0) for name, values in terms.items()},
        )


def tapped(call: Call, **activations: Float[Array, "..."]) -> dict[str, Array]:
    """Those of the activations that `call.taps` names.

    "name.mean_square" is a sum over all devices, as every metric is: of each one's mean square by their number.
    """
    taps: dict[str, Array] = {}
    for name, value in activations.items():
        if name in call.taps:
            taps[name] = value
        if f"{name}.mean_square" in call.taps:
            taps[f"{name}.mean_square"] = jnp.mean(jnp.square(value.astype(jnp.float32))) / call.layout.parts()
    return taps
