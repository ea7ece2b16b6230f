"""Traces of a few steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax

from jaxlm.layers.contracts import Batch
from jaxlm.train.state import State


class Profile:
    """Traces steps A to B with jax's profiler, into the run's directory `profile`."""

    def __init__(self, path: Any, steps: tuple[int, int] | None):
        self._path, self._steps, self._tracing = os.path.join(path, "profile"), steps, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def wrap(self, step: Callable[[int], Callable[[State, Batch], Any]]) -> Callable[[int], Callable]:
        """The same steps, the trace started before A and stopped before B."""
        if self._steps is None:
            return step
        first, last = self._steps

        def traced(index: int) -> Callable[[State, Batch], Any]:
            if index == first and not self._tracing:
                jax.profiler.start_trace(self._path)
                self._tracing = True
            if index == last and self._tracing:
                jax.profiler.stop_trace()
                self._tracing = False
            return step(index)

        return traced
