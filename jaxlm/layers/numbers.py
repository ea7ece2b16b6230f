"""Numbers of an experiment, which are traced where one program trains several."""

from __future__ import annotations

import jax


def matters(factor: float | jax.Array) -> bool:
    """Whether to compute what counts this much; of a traced factor nobody knows that it is zero."""
    return isinstance(factor, jax.Array) or factor != 0
