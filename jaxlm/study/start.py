"""Small models trained inside of one program, without a run: their step and the state that it begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxlm import config
from jaxlm.config.parametrization import times_base
from jaxlm.layers.contracts import Call
from jaxlm.models import build
from jaxlm.objectives.build import build as build_objective
from jaxlm.parallel.layout import single_device
from jaxlm.train import optimizers
from jaxlm.train.state import State
from jaxlm.train.step import Step, make_step


@dataclass(frozen=True)
class Start:
    """What training on one device begins with; both functions may be traced."""

    call: Call
    step: Step
    state: Callable[[Array], State]
    """Of a key: the parameters it draws, all of them trained, and fresh moments."""


def start(
    model: config.Decoder, optimizer: config.optimizer.Optimizer, steps: int, clip: float | None = None
) -> Start:
    """A decoder that learns the next token, a schedule of so many steps; the optimizer's rate may be traced."""
    call = dataclasses.replace(Call(single_device()), layers="unroll")
    transform = optimizers.build(optimizer, steps, hidden=1 / times_base(model))
    objective = build_objective(config.Autoregressive(), model, lambda: 0)

    def state(key: Array) -> State:
        made = build(model, key)
        frozen = {"model": jax.tree.map(lambda _: None, made)}
        return State(jnp.zeros((), jnp.int32), made, frozen, transform.init(made))

    return Start(call, make_step(objective, transform, call, seed=0, clip=clip), state)
