"""Learning rates: step -> value, as pure functions that can be traced.

`step` counts the updates made before this one: the first update uses value(0), the last value(steps - 1). The
warm-up line leaves zero at step 0 and reaches the peak at step `warmup`; the decay reaches its end at step
`steps`, where the next update would be. optax and PyTorch's usual schedules count the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.optimizer import Constant, Cosine, Linear, Schedule, WarmupStableDecay

Value = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def build(schedule: Schedule, steps: int) -> Value:
    """The learning rate at each step of a run of `steps`, a float32 scalar.

    A warm-up at least as long as the run is only its beginning; decays never overlap a warm-up except in
    `WarmupStableDecay`, where the two lines multiply. Raises `UsageError` for negative lengths.
    """
    decay = getattr(schedule, "decay", 0)
    if steps < 1 or schedule.warmup < 0 or decay < 0:
        raise UsageError(
            f"a schedule needs steps >= 1, warmup >= 0 and decay >= 0; this one has steps = {steps}, "
            f"warmup = {schedule.warmup}, decay = {decay}"
        )

    def value(step: Int[Array, ""] | int) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        risen = _share(step, 0, schedule.warmup)
        match schedule:
            case Constant():
                kept = 1.0
            case Cosine(final=final):
                kept = final + (1 - final) * (1 + jnp.cos(jnp.pi * _share(step, schedule.warmup, steps))) / 2
            case Linear(final=final):
                kept = 1 - (1 - final) * _share(step, schedule.warmup, steps)
            case WarmupStableDecay(final=final):
                kept = 1 - (1 - final) * _share(step, steps - decay, steps)
        return schedule.peak * risen * kept

    return value


def _share(step: Float[Array, ""], begin: int, end: int) -> Float[Array, ""] | float:
    """How much of the way from `begin` to `end` is behind, 0 to 1; an empty way is a jump at `begin`."""
    if end <= begin:
        return jax.lax.select(step >= begin, jnp.float32(1), jnp.float32(0))
    return jnp.clip((step - begin) / (end - begin), 0, 1)
