"""Which learning rate is best at which width: a sweep of small models, all rates in one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.parametrization import times_base
from jaxlm.layers.contracts import Batch, Call
from jaxlm.models import build
from jaxlm.objectives.build import build as build_objective
from jaxlm.parallel.layout import single_device
from jaxlm.train import optimizers
from jaxlm.train.state import State
from jaxlm.train.step import make_step

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
    call = dataclasses.replace(Call(single_device()), layers="unroll")
    objective = build_objective(config.Autoregressive(), model, lambda: 0)

    def trained(given: tuple[Array, Array]) -> Float[Array, ""]:
        rate, key = given
        transform = optimizers.build(optimizer(rate), steps, hidden=1 / times_base(model))
        step = make_step(objective, transform, call, seed=0, clip=1.0)
        made = build(model, key)
        frozen = {"model": jax.tree.map(lambda _: None, made)}
        state = State(jnp.zeros((), jnp.int32), made, frozen, transform.init(made))

        def body(state: State, _: None) -> tuple[State, Array]:
            state, metrics = step(state, batch(state.step))
            return state, metrics["loss"]

        losses = jax.lax.scan(body, state, None, length=steps)[1]
        return jnp.mean(losses[-max(1, round(LAST * steps)) :])

    keys = jnp.repeat(jax.random.split(jax.random.key(0), seeds), len(rates))
    found = jax.jit(lambda *given: jax.lax.map(trained, given))(jnp.tile(jnp.asarray(rates), seeds), keys)
    found = np.asarray(found, np.float64).reshape(seeds, -1).mean(axis=0)
    return np.where(np.isfinite(found), found, np.inf)
