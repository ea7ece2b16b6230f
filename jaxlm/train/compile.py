"""The steps of a run, compiled before they are needed and recorded in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax

from jaxlm.cluster import together
from jaxlm.layers.contracts import Call
from jaxlm.train import feed, telemetry
from jaxlm.train.session import Session, note
from jaxlm.train.step import make_step


def compiled_steps(session: Session) -> Callable[[int], Callable]:
    """step(index): the plain step, or at its cadence the one with telemetry, compiled when first needed."""
    setup, experiment = session.setup, session.experiment
    batch = feed.abstract_batch(session.rows, setup.call.layout)
    places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)

    def compiled(call: Call, **options: Any) -> tuple[Callable, str]:
        function = make_step(
            setup.objective,
            setup.optimizer,
            call,
            seed=experiment.train.seed,
            micro_batches=experiment.where.micro_batches,
            clip=experiment.train.clip,
            ema=experiment.train.ema,
            **options,
        )
        with session.clock("compile"):
            lowered = jax.jit(function, donate_argnums=0, out_shardings=(places, None)).lower(setup.abstract, batch)
            return together.compiled(lowered, setup.options), hashlib.sha256(lowered.as_text().encode()).hexdigest()

    mesh, asked = setup.call.layout.mesh, experiment.where.flags
    if asked and not setup.options:
        kind = mesh.devices.flat[0].device_kind
        session.display.say(f"where.flags {' '.join(asked)}: not for {kind}, left out")
    plain, lowered = compiled(setup.call)
    note(
        session,
        data=session.rows.fingerprint,
        tokenizer=session.prepared.tokenizer.fingerprint,
        devices=[device.device_kind for device in mesh.devices.flat],
        mesh=dict(mesh.shape),
        compiler_options=setup.options,
        lowered_step=lowered,
    )
    cadence, observed = experiment.where.every.telemetry, []

    def step(index: int) -> Callable:
        if not cadence or (index + 1) % cadence:
            return plain
        if not observed:
            call = dataclasses.replace(setup.call, taps=telemetry.TAPS)
            observed.append(compiled(call, observe=telemetry.observe)[0])
        return observed[0]

    return step
