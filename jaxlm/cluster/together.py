"""What the processes of a run owe each other when one of them cannot go on."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxlm.config.errors import Failure, UsageError

Result = TypeVar("Result")

PATIENCE_MS = 3_600_000
"""How long one process may compile for after another."""

GRACE = 3.0
"""Seconds that process 0, with whom the coordinator ends, gives the others to say what is wrong."""


def together(act: Callable[[], Result]) -> Result:
    """`act()` on every process, which then fail together: a UsageError or Failure of one is raised on all."""
    if jax.process_count() == 1:
        return act()
    result, error = None, None
    try:
        result = act()
    except (UsageError, Failure) as caught:
        error = caught
    codes = multihost_utils.process_allgather(np.asarray(0 if error is None else _exit_code(error)))
    if error is not None:
        raise error
    if codes.any():
        first = int(np.flatnonzero(codes)[0])
        kind = UsageError if codes[first] == 2 else Failure
        raise kind(f"process {first} could not go on: see its message")
    return result


def compiled(lowered: jax.stages.Lowered, options: dict[str, Any] | None = None) -> jax.stages.Compiled:
    """The program, once every process has it.

    One that finds it in its cache would start at once and wait for the others in the first collective, and on CPUs
    collectives give up after 30 seconds. Raises Failure when another process has gone.
    """
    program = lowered.compile(compiler_options=options)
    try:
        ocp.multihost.get_barrier_sync_fn()(key="compiled", timeout_ms=PATIENCE_MS)
    except jax.errors.JaxRuntimeError as error:
        raise Failure(_gone(error)) from error
    return program


@contextmanager
def leaving() -> Iterator[None]:
    """On several processes, one that fails within leaves at once, with its own exit code.

    jax would have it wait at the exit for the others, who wait for it in the middle of a step: minutes, and
    then both are aborted. Losing another process becomes a Failure of one line.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        # The last to be registered is the first to be called.
        atexit.register(_leave, _exit_code(error))
        if isinstance(error, jax.errors.JaxRuntimeError) and "Gloo" in str(error):
            raise Failure(_gone(error)) from error
        raise


def _gone(error: Exception) -> str:
    said = str(error).splitlines()[0]
    return f"another process of this run has gone: see its message, and start all again ({said})"


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(GRACE)
    os._exit(code)


def _exit_code(error: BaseException) -> int:
    match error:
        case UsageError():
            return 2
        case KeyboardInterrupt():
            return 130
        case SystemExit(code=int(code)):
            return code
    return 1
