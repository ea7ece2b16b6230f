"""Work in processes of its own that take turns, so that a machine whose speed drifts favors none of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Worker:
    """Processes that do the same work together: a line on stdin is one turn, a line of JSON on stdout its result.

    `facts` is the first such line of process 0, printed when it is ready. Other lines are not looked at: collective
    libraries print some.
    """

    def __init__(self, words: Sequence[str], *environments: Mapping[str, str]):
        """A process `python WORDS` for each environment, which adds to this process's own."""
        self._processes = [
            subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | environment,
            )
            for environment in environments
        ]
        self.facts = self._read()

    def _read(self) -> dict[str, Any]:
        """The next result of process 0, when all have theirs. Exits when a process has ended."""
        results = []
        for process in self._processes:
            line = next((line for line in process.stdout if line.startswith("{")), "")
            if not line:
                code = process.wait()
                self.kill()
                raise SystemExit(f"{' '.join(process.args)} ended early with code {code}")
            results.append(json.loads(line))
        return results[0]

    def turn(self) -> dict[str, Any]:
        """Once."""
        for process in self._processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """The end of stdin, and of the processes. Exits when one of them fails."""
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            for _ in process.stdout:
                pass
            if process.wait():
                raise SystemExit(f"{' '.join(process.args)} ended with code {process.returncode}")

    def kill(self) -> None:
        """At once."""
        for process in self._processes:
            process.kill()
            process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close() if kind is None else self.kill()


def serve(facts: Mapping[str, Any], turn: Callable[[], Mapping[str, Any]]) -> None:
    """The other end: prints the facts, and the result of a turn for each line of stdin, until there are no more."""
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range, as in `0.72 (0.69-0.83)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number, not below the least."""

    def number(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    number.__name__ = f"whole number of at least {least}"
    return number
