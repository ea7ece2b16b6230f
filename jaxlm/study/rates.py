"""Which learning rate is best at which width: a sweep of small models, all rates in one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.contracts import Batch
from jaxlm.study.start import start
from jaxlm.train.state import State

LAST = 0.2
"""Share of the steps, at the end, over which losses are averaged."""


def sweep(
    model: config.Decoder,
    optimizer: Callable[[float], config.optimizer.Optimizer],
    batch: Callable[[Array], Batch],
    rates: Sequence[float],
    steps: int,
    seeds: int = 1,
) -> Float[np.ndarray, "rate"]:
    """The mean loss of the last steps at each learning rate; `batch(step)` makes the data, in the program.

    A run that diverges has the loss infinity.
    """

    def trained(given: tuple[Array, Array]) -> Float[Array, ""]:
        rate, key = given
        begun = start(model, optimizer(rate), steps, clip=1.0)

        def body(state: State, _: None) -> tuple[State, Array]:
            state, metrics = begun.step(state, batch(state.step))
            return state, metrics["loss"]

        losses = jax.lax.scan(body, begun.state(key), None, length=steps)[1]
        return jnp.mean(losses[-max(1, round(LAST * steps)) :])

    keys = jnp.repeat(jax.random.split(jax.random.key(0), seeds), len(rates))
    found = jax.jit(lambda *given: jax.lax.map(trained, given))(jnp.tile(jnp.asarray(rates), seeds), keys)
    found = np.asarray(found, np.float64).reshape(seeds, -1).mean(axis=0)
    return np.where(np.isfinite(found), found, np.inf)
