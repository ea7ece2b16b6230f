"""usage: jaxlm doctor

Checks this machine: Python and packages, devices, memory, disk, permissions, flags and network. Each line is
ok, a warning or a problem with what to do about it. Exit code 1 if there is a problem.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jaxlm
from jaxlm.cli.text import size, table
from jaxlm.config.errors import UsageError

DEVICE_SECONDS = 60
"""Longest wait for jax to find its devices; a driver that hangs takes for ever."""
COORDINATOR_PORT = 8476
"""Where jax.distributed's coordinator listens on clusters unless told otherwise."""
GIB = 2**30

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One line: what was looked at, how it is, what was found and what to do."""

    topic: str
    state: str
    text: str


def main(argv: list[str]) -> int:
    """Prints all findings; returns 1 if one is a problem."""
    if argv:
        raise UsageError(f"takes no arguments, got {' '.join(argv)}")
    found = [one for check in CHECKS for one in check()]
    print(table(("", "", ""), [(one.state, one.topic, one.text) for one in found]).strip("\n"))
    problems = sum(one.state == PROBLEM for one in found)
    warnings = sum(one.state == WARNING for one in found)
    print(f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return 1 if problems else 0


# --- software ----------------------------------------------------------------------------------------------


def python() -> Iterator[Finding]:
    """At least 3.11."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("python", OK if good else PROBLEM, version if good else f"{version}: install 3.11 or newer")


def required() -> list[str]:
    """The core requirements, from the checkout or from the installed package."""
    project = Path(jaxlm.__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text())["project"]["dependencies"]
    return [one for one in importlib.metadata.requires("jaxlm") or [] if "extra ==" not in one]


def packages(requirements: list[str] | None = None) -> Iterator[Finding]:
    """Every core requirement is installed in a version that will do."""
    good = 0
    for text in required() if requirements is None else requirements:
        name, *bounds = re.split(r"\s*(?=[<>=!~])", text.split(";")[0].strip(), maxsplit=1)
        try:
            version = importlib.metadata.version(name.split("[")[0])  # extras are no part of a name
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", PROBLEM, f"{name} is missing: pip install '{text}'")
            continue
        if bounds and not _satisfies(version, bounds[0]):
            yield Finding("packages", PROBLEM, f"{name} is {version}: pip install '{text}'")
        else:
            good += 1
    if good:
        yield Finding("packages", OK, f"{good} requirements are met")


def _satisfies(version: str, bounds: str) -> bool:
    """Whether a version meets bounds such as `>=1.2,<2`, by its numbers."""
    have = _numbers(version)
    for bound in bounds.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|!=|<|>|~=)\s*([\w.]+)\s*", bound)
        if match is None:
            continue
        want = _numbers(match[2])
        width = max(len(have), len(want))
        a, b = have + (0,) * (width - len(have)), want + (0,) * (width - len(want))
        tests = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}
        tests["~="] = a >= b and have[: len(want) - 1] == want[:-1]
        if not tests[match[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*\d", version)[0].split("."))


# --- devices -----------------------------------------------------------------------------------------------


def devices(program: str | None = None, seconds: float = DEVICE_SECONDS) -> Iterator[Finding]:
    """What jax sees, asked in a process of its own that may hang or crash."""
    program = program or (
        "import jax; d = jax.devices();"
        "print(len(d), jax.default_backend(), d[0].device_kind, jax.local_device_count(), sep='|')"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        text = f"jax found no devices in {seconds:.0f} s: another process may hold them, or a driver hangs"
        yield Finding("devices", PROBLEM, f"{text}; JAX_PLATFORMS=cpu goes without")
        return
    if done.returncode:
        last = (done.stderr.strip().split("\n") or [""])[-1]
        yield Finding("devices", PROBLEM, f"jax does not start: {last[:300]}")
        return
    count, backend, kind, local = done.stdout.strip().split("\n")[-1].split("|")
    yield Finding("devices", OK, f"{count} x {kind} ({backend}), {local} on this host")
    from jaxlm.cli.environment import accelerators

    if backend == "cpu" and accelerators() and os.environ.get("JAX_PLATFORMS", "") != "cpu":
        names = ", ".join(accelerators()[:3])
        yield Finding(
            "devices",
            WARNING,
            f"{names} is there but jax uses the CPU: pip install 'jax[cuda12]' or 'jax[tpu]'",
        )


# --- machine -----------------------------------------------------------------------------------------------


def memory() -> Iterator[Finding]:
    """Memory that is free now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        yield Finding("memory", WARNING, "unknown: there is no /proc/meminfo")
        return
    table = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    free = table["MemAvailable"]
    text = f"{size(free)} of {size(table['MemTotal'])} free, {os.cpu_count()} cores"
    yield (
        Finding("memory", OK, text) if free > 2 * GIB else Finding("memory", WARNING, f"{text}: small models only")
    )


def disk(directory: str = "runs") -> Iterator[Finding]:
    """Space and permission where runs are written."""
    place = Path(directory)
    while not place.exists():
        place = place.parent if place.parent != place else Path(".")
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free for ./{directory}"
    yield (
        Finding("disk", OK, text)
        if free > 5 * GIB
        else Finding("disk", WARNING if free > GIB else PROBLEM, f"{text}: delete old checkpoints or use --run-dir")
    )
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        yield Finding("permission", OK, f"./{directory} can be written")
    except OSError as error:
        text = f"./{directory} cannot be written ({error.strerror}): use --run-dir"
        yield Finding("permission", PROBLEM, text)


def variables() -> Iterator[Finding]:
    """Environment variables that change what jax does."""
    names = (
        "JAX_PLATFORMS",
        "XLA_FLAGS",
        "LIBTPU_INIT_ARGS",
        "GLIBC_TUNABLES",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
    )
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Finding("flags", OK, "; ".join(given) or "none set")
    for name in ("JAX_DISABLE_JIT", "JAX_DEBUG_NANS", "JAX_ENABLE_X64"):
        if os.environ.get(name, "").lower() in ("1", "true"):
            yield Finding("flags", WARNING, f"{name} is set: steps are slow; unset it unless you are debugging")


def network(port: int = COORDINATOR_PORT) -> Iterator[Finding]:
    """The host's name resolves and the coordinator's port is free."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
        yield Finding("network", OK, f"{name} is {address}")
    except OSError:
        text = f"{name} does not resolve: add it to /etc/hosts before running on several hosts"
        yield Finding("network", WARNING, text)
    with socket.socket() as one:
        try:
            one.bind(("", port))
            yield Finding("network", OK, f"port {port} is free for the coordinator")
        except OSError as error:
            text = f"port {port} is taken ({error.strerror}): give the coordinator another address"
            yield Finding("network", WARNING, text)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    packages,
    devices,
    memory,
    disk,
    variables,
    network,
)
