"""What the process needs before jax is imported.

On CPU, glibc gives freed arrays back to the system and takes fresh pages for the next: page faults in every
step. Its allocator is told to keep them and to use huge pages; it reads that only when a process starts, so the
same command is executed once more. On a GPU, jax's allocator takes three quarters of the memory by default: here
as much as plans count with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from jaxlm.config.chips import MEMORY_SHARE

CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
GPU_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
SENTINEL = "JAXLM_REEXEC"
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:"
    "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"
)


def prepare(words: list[str], *, runs: int = 1) -> None:
    """Re-executes this process once if the CPU will compute; `words` must be its own command line.

    Of several `runs` in one program each core takes its share: the CPU is as many devices, unless the user has said
    how many. Called as a function (from a test or a notebook) it does nothing. The manifest records the variables.
    """
    if sys.argv[1:] != words:
        return
    if runs > 1:
        os.environ.setdefault(CPU_DEVICES, str(min(runs, os.cpu_count() or 1)))
    if accelerators():
        os.environ.setdefault(GPU_MEMORY, str(MEMORY_SHARE))
    if not wanted(os.environ):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    changed = {**os.environ, SENTINEL: "1", "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], changed)


def wanted(environment: Mapping[str, str], root: str = "/", platform: str = sys.platform) -> bool:
    """Whether the CPU will compute on Linux and neither the user nor we have set the allocator up."""
    if platform != "linux" or "GLIBC_TUNABLES" in environment or SENTINEL in environment:
        return False
    backends = environment.get("JAX_PLATFORMS", "").lower()
    return backends == "cpu" or (backends == "" and not accelerators(root))


def accelerators(root: str = "/") -> list[str]:
    """Device files of GPUs and TPUs, found without importing jax."""
    device = Path(root) / "dev"
    found = [
        *device.glob("nvidia[0-9]*"),
        *device.glob("accel*"),
        *device.glob("vfio/[0-9]*"),
        *device.glob("kfd"),
    ]
    return sorted(str(one) for one in found)
