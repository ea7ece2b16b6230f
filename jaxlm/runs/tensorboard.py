"""Scalars as TensorBoard event files, written by the tensorboard package without TensorFlow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxlm.runs.files import is_local


class Scalars:
    """Writes scalars; a thread puts them on disk twice a minute, so a step never waits."""

    def __init__(self, directory: str):
        """Raises ImportError without the tensorboard package."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(directory, flush_secs=30)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Adds `{"train/loss": 1.5, ...}` at a step."""
        each = [self._summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        self._writer.add_event(
            self._event(wall_time=time.time(), step=int(step), summary=self._summary(value=each))
        )

    def close(self) -> None:
        """Puts what waits on disk."""
        self._writer.close()


def open_tensorboard(run_dir: Any, say: Callable[[str], None] = print) -> Scalars | None:
    """The writer of `run_dir/tensorboard`.

    Without the extra, or in an object store, training goes on without: None, and one line through `say`.
    """
    if not is_local(run_dir):
        say(f"no TensorBoard events: they need a local run directory, not {os.fspath(run_dir)}")
        return None
    try:
        return Scalars(os.path.join(run_dir, "tensorboard"))
    except ImportError:
        say("no TensorBoard events: pip install 'jaxlm[report]' adds them; metrics are in the journal")
        return None
