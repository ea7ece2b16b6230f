"""Processes of a study, each of which trains a part of it; SIGTERM is passed on, so that the part saves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from jaxlm.config.errors import AGAIN

LOGS = "logs"


def log_of(root: Path, name: str) -> Path:
    """The file with all that a part has said."""
    return root / LOGS / f"{name.replace('/', '-')}.txt"


def child(words: Sequence[str], log: Path, say: Callable[[str], None]) -> tuple[int, str]:
    """Runs `jaxlm study` with these words, its output in a file; what it evaluates is said.

    Returns the exit code, which is 75 whenever SIGTERM came (before training a process has nothing to save and just
    ends), and the last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last, told = "", False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        process.terminate()

    with log.open("w") as file, _process(words) as process:
        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                if "held out" in line:
                    say(last)
            process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    return AGAIN if told else process.returncode, last


def _process(words: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxlm", "study", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
