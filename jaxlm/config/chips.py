"""Accelerators as plans and runs need to know them: peaks, clocks, memory, links and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30
MEMORY_SHARE = 0.93
"""Of a GPU's memory that jax's allocator takes; the rest is for what CUDA and NCCL keep themselves."""


@dataclass(frozen=True)
class Chip:
    """One accelerator, as one device of a mesh. Rates are per second, sizes in bytes."""

    name: str
    kind: str
    """`device_kind` as jax names it."""
    platform: str
    """The compiler: "tpu" or "cuda"."""
    peak: float
    """bfloat16 FLOP/s."""
    clock: float
    """Hz. For TPUs so calibrated that the compiler's cycles of a plain product come to FLOPs / peak."""
    memory: int
    """Bytes of HBM that the compiler lets a program use, where it has told; else what the vendor sells."""
    bandwidth: float
    """Bytes/s of HBM."""
    link: float
    """Bytes/s of one link, one way."""
    links: int
    """Links that a collective over the whole mesh keeps busy: on a torus two axes, both directions."""
    vector_lanes: int = 0
    """float32 vector operations a cycle: 1024 lanes x 4 slots a core (TPU)."""
    cores: int = 1
    """TensorCores that share a device (megacore)."""
    network: float = 0.0
    """Bytes/s that a chip sends where `link` does not reach: to other hosts (GPUs), to other slices (TPUs)."""
    joined: int = 0
    """Chips of a host (GPUs) or slice (TPUs) that `link` joins; 0 where it joins all."""
    price: float | None = None
    """USD an hour and chip, on demand; see PRICES."""

    def wire(self, group: Sequence[int] = ()) -> float:
        """Bytes/s that a chip sends in a collective of these devices.

        Where a network joins hosts or slices, the chips of one that take part share its adapters: a ring passes
        each byte between them once.
        """
        inside = self.link * self.links
        islands = {device // self.joined for device in group} if self.joined else {0}
        if len(islands) < 2:
            return inside
        return min(inside, self.network * len(group) / len(islands))


PRICES = "Google Cloud on demand, as quoted by jax-ml.github.io/scaling-book/applied-inference, February 2025"
"""Source of every price in the table; what it does not list has none, and `--price` gives it."""

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", "tpu", 275e12, 1.05e9, int(30.75 * GIB), 1.2e12, 45e9, 4, 2 * 4096, 2),
        Chip(
            "v5e", "TPU v5 lite", "tpu", 197e12, 1.5e9, int(15.75 * GIB), 8.1e11, 45e9, 4, 4096, 1, 3.125e9, 0, 1.2
        ),
        Chip("v5p", "TPU v5", "tpu", 459e12, 1.75e9, int(95.74 * GIB), 2.765e12, 90e9, 4, 8192, 2, 6.25e9, 0, 4.2),
        Chip("v6e", "TPU v6 lite", "tpu", 918e12, 1.75e9, int(31.25 * GIB), 1.64e12, 90e9, 4, 4096, 1, 12.5e9),
        # one device is one of the chip's two cores
        Chip("tpu7x", "TPU7x", "tpu", 2307e12 / 2, 2.2e9, int(94.75 * GIB), 7.4e12 / 2, 90e9, 4, 4096),
        # 18 NVLinks that together carry 450 GB/s one way; 400 Gb/s of network a GPU; of its memory, MEMORY_SHARE
        Chip(
            "h100",
            "NVIDIA H100 80GB HBM3",
            "cuda",
            989e12,
            1.98e9,
            int(MEMORY_SHARE * 84_942_979_072),
            3.35e12,
            25e9,
            18,
            network=50e9,
            joined=8,
            price=10.8,
        ),
    )
}
"""By the name a topology starts with. Peaks and bandwidths are the vendors' (cloud.google.com/tpu/docs, NVIDIA's
H100 data sheet); rates of links, and of the network between slices, are those of
jax-ml.github.io/scaling-book/tpus; memory of TPUs
is what libtpu 0.0.42 names when a program needs more."""


def of_kind(kind: str) -> Chip | None:
    """The chip that jax names so; None for any other device. TPUs have two names in jax, "TPU v5" and "TPU v5p"."""
    return next((chip for chip in CHIPS.values() if kind in (chip.kind, f"TPU {chip.name}")), None)
