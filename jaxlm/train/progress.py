"""What a person sees of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display:
    """Lines for the log and, on a terminal, a bar for the steps. Silent on all processes but the first."""

    def __init__(self, total: int, *, quiet: bool = False):
        self._console = Console(quiet=quiet, highlight=False)
        self._live = self._console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("preparing", total=total)
        self._start = time.monotonic()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays, with the seconds since the start."""
        self._bar.console.print(f"{time.monotonic() - self._start:6.1f}s  {line}", markup=False, soft_wrap=True)
        sys.stdout.flush()

    def step(self, done: int, description: str = "training") -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, description=description)
