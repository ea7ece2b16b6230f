"""The journal of a run: a line of JSON a record, readable after a kill at any byte.

Records are `{"kind", "step", "attempt", "time", ...}` with kind `train` (`loss`, ...), `evaluate`
(`bits_per_byte`, ...), `telemetry`, `tasks` (`task/metric`: a value and its interval's ends; `failed`: why others
could not be asked, by task) or `event`. An attempt that resumes says from which step, and everything that earlier
attempts wrote beyond it is superseded: the reader sees one history.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any, Literal

from etils import epath

from jaxlm.config.errors import Failure
from jaxlm.runs.files import explained, is_local

Kind = Literal["train", "evaluate", "telemetry", "tasks", "event"]
FILE, FOLDER = "metrics.jsonl", "metrics"
PART_SECONDS = 30.0
"""In an object store records wait this long for each other, as every part is an object of its own."""

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Journal:
    """Writes the records of one attempt: at once where files can be appended to, else in numbered parts."""

    def __init__(
        self, run_dir: Any, attempt: int = 1, resumed_from: int | None = None, in_parts: bool | None = None
    ):
        """`resumed_from` is the step whose state this attempt restored; 0 if it starts again."""
        self._path = epath.Path(run_dir)
        self._attempt = attempt
        self._parts = not is_local(run_dir) if in_parts is None else in_parts
        self._waiting: list[str] = []
        self._part = 0
        self._since = time.monotonic()
        self._file = None
        with explained(self._path / FILE):
            if self._parts:
                (self._path / FOLDER).mkdir(parents=True, exist_ok=True)
            else:
                _cut_torn_line(self._path / FILE)
                self._file = open(self._path / FILE, "ab", buffering=0)  # noqa: SIM115 (open while the run is)
        if resumed_from is not None:
            self.write("event", resumed_from, event="resumed")

    def write(self, kind: Kind, step: int, **values: Any) -> None:
        """Adds a record; numbers may be numpy's or jax's scalars. Raises Failure if the disk is full."""
        entry = {"kind": kind, "step": int(step), "attempt": self._attempt, "time": round(time.time(), 3)}
        line = json.dumps(_plain(entry | values), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        if self._file is not None:
            with explained(self._path / FILE):
                _write_all(self._file.fileno(), (line + "\n").encode())
            return
        self._waiting.append(line + "\n")
        if time.monotonic() - self._since > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes all records durable against the end of this process."""
        if self._waiting:
            name = self._path / FOLDER / f"{self._attempt:04d}-{self._part:06d}.jsonl"
            with explained(name):
                name.write_text("".join(self._waiting))
            self._waiting, self._part = [], self._part + 1
        self._since = time.monotonic()

    def close(self) -> None:
        """Flushes and ends the journal."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Silent:
    """The journal of a process that writes none: all but the first of a run."""

    def write(self, kind: Kind, step: int, **values: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return


def read_metrics(run_dir: Any, kinds: tuple[Kind, ...] | None = None) -> list[dict[str, Any]]:
    """The records of a run as one history, without what a later attempt wrote again.

    A torn last line is left out. Raises Failure for a line that is damaged elsewhere.
    """
    wanted = None if kinds is None else {*kinds, "event"}
    records = [one for text, name in _texts(epath.Path(run_dir)) for one in _records(text, name, wanted)]
    resumed: dict[int, int] = {}
    latest: dict[tuple[str, int], int] = {}
    for one in records:
        if one.get("event") == "resumed":
            resumed[one["attempt"]] = one["step"]
        key = (one["kind"], one["step"])
        latest[key] = max(latest.get(key, 0), one["attempt"])

    def current(one: dict[str, Any]) -> bool:
        if one["kind"] == "event":
            return True
        if latest[one["kind"], one["step"]] != one["attempt"]:
            return False
        return not any(later > one["attempt"] and step < one["step"] for later, step in resumed.items())

    return [one for one in records if current(one) and (kinds is None or one["kind"] in kinds)]


def _texts(path: epath.Path) -> list[tuple[str, str]]:
    """Contents and names of the journal's files in order."""
    with explained(path / FILE, "read"):
        if (path / FILE).exists():
            return [((path / FILE).read_bytes().decode(errors="replace"), str(path / FILE))]
        parts = sorted((path / FOLDER).glob("*.jsonl")) if (path / FOLDER).exists() else []
        return [(part.read_text(), str(part)) for part in parts]


def _records(text: str, name: str, kinds: set[str] | None) -> list[dict[str, Any]]:
    lines = text.split("\n")[:-1]  # what follows the last newline was never finished
    prefixes = None if kinds is None else tuple(f'{{"kind":"{kind}"' for kind in kinds)
    found = []
    for i, line in enumerate(lines, 1):
        if prefixes and line.startswith('{"kind":"') and not line.startswith(prefixes):
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not {"kind", "step", "attempt"} <= entry.keys():
            raise Failure(f"{name}:{i} is damaged; delete the line to read the others")
        found.append({k: _SPECIAL.get(v, v) if isinstance(v, str) else v for k, v in entry.items()})
    return found


def _cut_torn_line(path: epath.Path) -> None:
    """Ends the file after its last whole line: what was killed within a write is no record."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _plain(value: Any) -> Any:
    """A value that JSON has; numbers that it lacks become their names."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
