"""The loop: steps, and at their cadence everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxlm.config.errors import Failure
from jaxlm.layers.contracts import Batch
from jaxlm.layers.names import flatten
from jaxlm.runs.goodput import Clock
from jaxlm.train.state import State

Action = Callable[[int, State], None]
"""act(steps taken, state)."""


@dataclass
class Metrics:
    """Metrics of steps not yet looked at: they stay on the device until somebody asks."""

    names: tuple[str, ...]
    """Names of the trained leaves, in the tree's order."""
    waiting: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def add(self, done: int, metrics: dict[str, Any]) -> None:
        """After a step; waits for the step before it, so that at most two are under way."""
        if self.waiting:
            jax.block_until_ready(self.waiting[-1][1]["loss"])
        self.waiting.append((done, metrics))

    def take(self) -> list[tuple[int, dict[str, Any]]]:
        """All that waited, as host numbers. Raises Failure at the first step that was not finite."""
        taken = [(done, jax.device_get(metrics)) for done, metrics in self.waiting]
        self.waiting = []
        for done, metrics in taken:
            bad, loss = int(metrics["first_bad_leaf"]), float(metrics["loss"])
            if bad >= 0:
                raise Failure(
                    f"step {done}: the gradient of {self.names[bad]} is not finite, the loss is {loss:.4g}. "
                    "The last checkpoint is from before it; lower the learning rate, or clip, and run again"
                )
        return taken


def names_of(state: State) -> tuple[str, ...]:
    """Names of the trained leaves, in the order that a step numbers them."""
    return tuple(flatten(state.model))


def run_steps(
    step: Callable[[int], Callable[[State, Batch], tuple[State, dict[str, Any]]]],
    state: State,
    batches: Callable[[int], Batch],
    *,
    first: int,
    last: int,
    metrics: Metrics,
    actions: tuple[tuple[int, Action], ...],
    interrupted: Callable[[int], bool],
    clock: Clock,
) -> tuple[State, int]:
    """Take steps `first` to `last`; returns the state and the number of steps taken in all.

    `step(index)` is the compiled step to use; an action runs after every `cadence` steps (0: never) and, if it has
    a cadence, after the last. Ends early, after a whole step, when interrupted.
    """
    done = first
    for index in range(first, last):
        with clock("data"):
            batch = batches(index)
        with clock("step"):
            state, measured = step(index)(state, batch)
            metrics.add(index + 1, measured)
        done = index + 1
        for cadence, act in actions:
            if cadence and (done % cadence == 0 or done == last):
                act(done, state)
        if interrupted(done):
            break
    with clock("step"):
        jax.block_until_ready(state)
    return state, done
