"""When a request may be sent: the rate, waits between tries, and the budget."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Limits:
    """How hard a teacher is asked, and for how long."""

    concurrency: int = 4
    """Requests in flight at once."""
    rate: float = 0.0
    """Requests begun in a minute, tries included; 0 is as many as there can be."""
    timeout: float = 120.0
    """Seconds for a whole reply."""
    tries: int = 6
    """Of one request."""
    wait: float = 1.0
    """Seconds before the second try; doubled for each further one."""
    longest_wait: float = 60.0
    """What the doubling ends at."""
    patience: float = 600.0
    """Seconds of a Retry-After that are waited for."""
    failures: int = 10
    """Requests that fail one after another before all is stopped."""


def backoff(limits: Limits, tries: int, asked: float | None, noise: random.Random) -> float:
    """Seconds to wait after so many tries: doubled each time, up to a half less by chance, and never less than the
    server asked for.
    """
    whole = min(limits.longest_wait, limits.wait * 2 ** (tries - 1))
    return max(whole * noise.uniform(0.5, 1.0), asked or 0.0)


class Pace:
    """Spreads the requests of all threads evenly over time."""

    def __init__(self, rate: float, stop: threading.Event):
        self.gap, self.stop, self.lock, self.next = 60.0 / rate if rate else 0.0, stop, threading.Lock(), 0.0

    def wait(self) -> bool:
        """Waits for one's turn; False if all is to stop."""
        with self.lock:
            begin = max(time.monotonic(), self.next)
            self.next = begin + self.gap
        return not self.stop.wait(max(begin - time.monotonic(), 0.0))

    def hold(self, seconds: float) -> None:
        """No request is begun for so long: the server said so."""
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)


class Budget:
    """Dollars: what was spent, and what requests in flight may cost at most. Never more than the limit together."""

    def __init__(self, limit: Decimal | None, spent: Decimal, stop: threading.Event):
        self.limit, self.spent, self.held, self.stop = limit, spent, Decimal(0), stop
        self.changed = threading.Condition()

    def reserve(self, most: Decimal) -> bool:
        """Waits until a request that costs `most` cannot exceed the limit; False if that will not be."""
        with self.changed:
            while self.limit is not None and self.spent + self.held + most > self.limit:
                if not self.held or self.stop.is_set():
                    return False
                self.changed.wait(0.1)
            self.held += most
            return True

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """What was reserved has cost so much."""
        with self.changed:
            self.held -= most
            self.spent += cost
            self.changed.notify_all()
