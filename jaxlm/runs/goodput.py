"""Where the wall time of a run goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

Activity = Literal["data", "step", "checkpoint", "evaluate", "compile", "other"]


class Clock:
    """Seconds by activity; they add up to the wall time since the clock was made.

    `with clock("step"): ...`; an activity inside another stops the outer one's time. What lies in none is
    `other`.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._last = now()
        self._seconds: dict[str, float] = {}
        self._stack: list[str] = ["other"]

    @contextlib.contextmanager
    def __call__(self, activity: Activity) -> Iterator[None]:
        self._settle()
        self._stack.append(activity)
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def _settle(self) -> None:
        """Books the time since the last change to the activity that had it."""
        now = self._now()
        name = self._stack[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Seconds so far by activity."""
        self._settle()
        return dict(self._seconds)


def write(journal, step: int, clock: Clock) -> None:
    """Puts the seconds so far of this attempt into the journal."""
    seconds = {name: round(value, 3) for name, value in clock.seconds().items()}
    journal.write("event", step, event="goodput", seconds=seconds)


def breakdown(records: list[dict]) -> dict[str, float]:
    """Seconds by activity over all attempts, from the last entry of each."""
    last = {one["attempt"]: one["seconds"] for one in records if one.get("event") == "goodput"}
    total: dict[str, float] = {}
    for seconds in last.values():
        for name, value in seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total
