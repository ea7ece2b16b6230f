"""SIGTERM: what a scheduler sends before it takes the machine away."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxlm.config.errors import AGAIN


class Interruption:
    """Holds SIGTERM while it is entered; `interruption(step)` says whether to stop after that step.

    Until `training` is set there is nothing to save, and the signal ends the process at once with code 75.
    Afterwards it is only noted, and one that comes again, as during the save, changes nothing. On several
    processes jax holds the signal, and all of them answer alike at one step, whoever was told.
    """

    def __init__(self) -> None:
        self.training = False
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if not self.training:
            raise SystemExit(AGAIN)

    def __call__(self, step: int) -> bool:
        """To be asked once after each step, by all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._came
