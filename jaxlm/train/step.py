"""One training step: a pure function of the state and a global batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key, PyTree

from jaxlm.config.errors import UsageError
from jaxlm.layers import random
from jaxlm.layers.axes import batch_specs, specs
from jaxlm.layers.contracts import Batch, Call
from jaxlm.layers.names import combine
from jaxlm.objectives.objective import Objective, Sums, Writes
from jaxlm.train.state import State

Metrics = dict[str, Array]
Step = Callable[[State, Batch], tuple[State, Metrics]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    call: Call,
    *,
    seed: int,
    micro_batches: int = 1,
    clip: float | None = None,
    ema: float | None = None,
    observe: Callable[[PyTree, PyTree, PyTree], Metrics] | None = None,
) -> Step:
    """A function (state, batch) -> (state, metrics), to be jitted with the state donated.

    `observe(parameters, gradients, updates)` adds metrics; without it the compiled step holds no trace of them.
    Raises UsageError for an objective that cannot be split, and (when traced) for rows that do not divide.
    """
    if micro_batches > 1 and objective.couples == "batch":
        raise UsageError(
            f"where.micro_batches={micro_batches}: the rows of {type(objective).__name__} share one loss "
            "and cannot be split; use 1"
        )

    gradient = make_gradient(objective, call, micro_batches)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        if isinstance(objective, Writes):
            batch = objective.rollout(
                state.whole(), batch, random.key(seed, state.step, "rollout"), call, state.frozen
            )
        batch = objective.prepare(batch, random.key(seed, state.step, "prepare"))
        weights = objective.weights(batch)
        key = random.key(seed, state.step, "model")

        gradients, (value, (terms, sums)) = gradient(state.model, state.frozen, batch, weights, key)
        norm, bad = _norm(gradients)
        if clip is not None:
            scale = jnp.minimum(1.0, clip / (norm + 1e-6))
            gradients = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
        updates, moments = optimizer.update(gradients, state.optimizer, state.model)
        model = optax.apply_updates(state.model, updates)
        average = state.ema if ema is None else optax.incremental_update(model, state.ema, 1.0 - ema)
        metrics = {"loss": value, **terms, **sums, "gradient_norm": norm, "first_bad_leaf": bad}
        if observe is not None:
            metrics |= observe(state.model, gradients, updates)
        return dataclasses.replace(state, step=state.step + 1, model=model, optimizer=moments, ema=average), metrics

    return step


def make_gradient(objective: Objective, call: Call, micro_batches: int = 1) -> Callable:
    """A function (trained, frozen, batch, weights, key) -> (gradients, (loss, (terms, sums to report))).

    Value and gradient are taken in one program on each device: of what its own rows and positions add to the sums.
    Gathering a parameter transposes to reduce-scattering its gradient; copies are summed once, at the end.
    """
    layout, whole = call.layout, PartitionSpec()

    def gradient(
        trained: PyTree, frozen: dict[str, Any], batch: Batch, weights: Sums, key: Key[Array, ""]
    ) -> tuple[PyTree, tuple[Array, tuple[Metrics, Metrics]]]:
        places = specs(trained, layout)

        def of_a_device(trained: PyTree, frozen: dict[str, Any], batch: Batch, weights: Sums, key: Key[Array, ""]):
            loss = functools.partial(_loss, objective, call, frozen, weights, key)
            gradients, values = _accumulate(loss, trained, batch, micro_batches, call)
            total = functools.partial(layout.total_gradient, dtype=call.precision.compute)
            return jax.tree.map(total, gradients, places), layout.total(values)

        given = (places, specs(frozen, layout), batch_specs(batch, layout), whole, whole)
        return layout.spmd(of_a_device, given, (places, whole))(trained, frozen, batch, weights, key)

    return gradient


def _loss(
    objective: Objective,
    call: Call,
    frozen: dict[str, Any],
    weights: Sums,
    key: Key[Array, ""],
    trained: PyTree,
    micro: Batch,
) -> tuple[Float[Array, ""], tuple[Metrics, Metrics]]:
    """sum over terms of coefficient * total / global weight, and (terms, sums to report)."""
    model = combine(trained, frozen["model"])
    totals, sums = objective.totals(model, micro, key, call, frozen)
    terms = {name: total / weights[name] for name, total in totals.items()}
    return sum(objective.coefficients[name] * term for name, term in terms.items()), (terms, sums)


def _accumulate(
    loss: Callable, trained: PyTree, batch: Batch, micro_batches: int, call: Call
) -> tuple[PyTree, tuple[Array, tuple[Metrics, Metrics]]]:
    """Gradients and values summed over micro-batches, one after the other."""

    def gradient(micro: Batch) -> tuple[PyTree, Any]:
        value, gradients = jax.value_and_grad(loss, has_aux=True)(trained, micro)
        return jax.tree.map(lambda g: g.astype(call.precision.accumulation), gradients), value

    if micro_batches == 1:
        return gradient(batch)
    rows = batch.targets.shape[0]
    if rows % micro_batches:
        raise UsageError(f"a batch of {rows} rows does not divide into where.micro_batches={micro_batches}")
    # Row i goes to micro-batch i mod n: the rows of a device stay on it.
    micros = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], micros))
    )

    def body(total: PyTree, micro: Batch) -> tuple[PyTree, None]:
        # XLA:TPU stops at a sum over devices that is added up in a loop after a change of format.
        return jax.tree.map(jnp.add, total, call.layout.barrier(gradient(micro))), None

    return jax.lax.scan(body, zeros, micros)[0]


def _norm(gradients: PyTree) -> tuple[Float[Array, ""], Array]:
    """The global norm, and the number of the first leaf that is not finite (-1: all are)."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradients)]
    bad = ~jnp.isfinite(jnp.stack(squares))
    return jnp.sqrt(sum(squares)), jnp.where(bad.any(), jnp.argmax(bad), -1)
