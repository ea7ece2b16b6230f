"""Real processes that train the tiny experiment, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlm.runs.journal import read_metrics

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/train/tiny.py"
PATIENCE = 240
"""Seconds after which a process hangs: the first of a session compiles, perhaps on a busy machine."""


FLAGS = os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0")
"""Compiling takes half the time; the nightly drills set it to nothing."""


@dataclass
class Finished:
    """A process that has ended by itself."""

    code: int
    out: str
    err: str

    def expect(self, code: int) -> Finished:
        assert self.code == code, f"exit code {self.code}, expected {code}\n{self.out}\n{self.err}"
        return self


@dataclass
class Ground:
    """A directory with text, in which runs are made; data and compiled programs are shared by all of a session."""

    path: Path
    shared: Path

    def start(self, *words: str, devices: int = 1, **environment: str) -> subprocess.Popen:
        """`jaxlm WORDS` in a process group of its own."""
        return self._start(["-m", "jaxlm", *words], devices, environment)

    def script(self, code: str, *words: str, devices: int = 1, **environment: str) -> subprocess.Popen:
        """Python code, in the same surroundings."""
        return self._start(["-c", code, *words], devices, environment)

    def _start(self, words: list[str], devices: int, environment: dict[str, str]) -> subprocess.Popen:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "JAXLM_", "XLA_", "GLIBC_"))}
        ours = {
            "PYTHONPATH": f"{ROOT}:{self.path}",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.shared / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAXLM_CACHE": str(self.shared / "data"),
            "XLA_FLAGS": FLAGS,
        }
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.path,
            env=inherited | ours | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def train(self, run: str, *words: str, devices: int = 1, experiment: Path = TINY, **environment: str):
        """`jaxlm run` of the tiny experiment, started."""
        words = ("run", str(experiment), "--run-dir", run, *words)
        return self.start(*words, devices=devices, **environment)

    def finish(self, run: str, *words: str, devices: int = 1, code: int = 0, **options) -> Finished:
        """`jaxlm run` to its end."""
        return end(self.train(run, *words, devices=devices, **options)).expect(code)

    def on_processes(self, start: Callable[..., subprocess.Popen], *words: str, processes: int = 2, **options: Any):
        """`start(*words, **options)` of several processes that find each other on this machine."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        shared = {"JAXLM_COORDINATOR": coordinator, "JAXLM_NUM_PROCESSES": str(processes), **options}
        return [start(*words, JAXLM_PROCESS_ID=str(i), **shared) for i in range(processes)]

    def train_on_processes(self, run: str, *words: str, devices: int = 2, **options: Any) -> list[subprocess.Popen]:
        """`jaxlm run` of the tiny experiment on two processes."""
        return self.on_processes(self.train, run, *words, devices=devices, **options)

    def manifest(self, run: str, attempt: int | None = None) -> dict:
        name = "manifest.json" if attempt is None else f"manifests/{attempt:04d}.json"
        return json.loads((self.path / run / name).read_text())

    def attempts(self, run: str) -> int:
        return len(list((self.path / run / "manifests").iterdir()))

    def outcome(self, run: str) -> tuple[str, dict]:
        """Digest of the final state, and all that training and evaluation measured, by kind and step."""
        assert (self.path / run / "DONE").exists()
        return self.manifest(run)["state"], measured(self.path / run)


def end(process: subprocess.Popen, patience: float = PATIENCE) -> Finished:
    """Waits; kills and fails when it takes too long."""
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"still running after {patience} s\n{out}\n{err}") from None
    return Finished(process.returncode, out, err)


def measured(run: Path) -> dict[tuple[str, int], dict]:
    """The journal as one history, without clocks."""
    records = read_metrics(run, ("train", "evaluate"))
    found = {(one["kind"], one["step"]): one for one in records}
    assert len(found) == len(records), "a step stands twice in the history"
    return {key: {k: v for k, v in one.items() if k not in ("time", "attempt")} for key, one in found.items()}


def trained(run: Path, step: int) -> Callable[[], bool]:
    """To be waited for: the journal has this step."""
    return lambda: (run / "metrics.jsonl").exists() and ("train", step) in measured(run)


def wait_for(process: subprocess.Popen, there: Callable[[], object], patience: float = PATIENCE) -> None:
    """Returns as soon as `there()`, looking every half millisecond. Fails if the process ends before."""
    limit = time.monotonic() + patience
    while not there():
        if process.poll() is not None:
            assert there(), "".join(process.communicate())
            return
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.0005)


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written, or was when its writer died."""
    folder = run / "checkpoints"
    return folder.exists() and any(".orbax-checkpoint-tmp" in one.name for one in folder.iterdir())


def saved(run: Path) -> list[int]:
    """Steps of whole checkpoints."""
    folder = run / "checkpoints"
    return sorted(int(one.name) for one in folder.iterdir() if one.name.isdigit()) if folder.exists() else []


def kill(process: subprocess.Popen) -> None:
    """`kill -9`, at once."""
    process.kill()
    process.communicate()


def contents(path: Path) -> dict[str, str]:
    """A hash of every file below, and its time of change."""
    return {
        str(one.relative_to(path)): f"{one.stat().st_mtime_ns} "
        + (hashlib.sha256(one.read_bytes()).hexdigest() if one.is_file() else "")
        for one in sorted(path.rglob("*"))
    }


def text(path: Path, files: int = 60, seed: int = 0) -> None:
    """Documents of 40 to 400 letters, each in a file of its own: several in a row, and some over its edge."""
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefghijkl") for _ in range(draw.randint(2, 6))) for _ in range(50)]
    path.mkdir()
    for i in range(files):
        chosen = [draw.choice(words) for _ in range(draw.randint(10, 80))]
        (path / f"{i:03d}.txt").write_text(" ".join(chosen) + ".\n")
