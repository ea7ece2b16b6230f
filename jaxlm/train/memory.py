"""What it means when a device has too little memory, said where it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxlm.config.errors import Failure
from jaxlm.config.experiment import Experiment

EXHAUSTED = "RESOURCE_EXHAUSTED"
"""How XLA's errors of this kind begin."""


@contextmanager
def enough(experiment: Experiment) -> Iterator[None]:
    """Turns XLA's error for exhausted memory into a Failure that says what would make the step smaller."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason, found, rest = str(error).partition(EXHAUSTED)
        if not found:
            raise
        where, train = experiment.where, experiment.train
        raise Failure(
            f"a device has too little memory: {(rest.lstrip(': ') or reason).splitlines()[0]}\n"
            f"{train.batch} rows of {train.length} tokens in {where.micro_batches} micro-batches, where.remat "
            f"{where.remat}: raise where.micro_batches, keep less by where.remat (full is least), or take more "
            "devices; jaxlm plan says what a step needs"
        ) from error
