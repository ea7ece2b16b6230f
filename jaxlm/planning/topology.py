"""From `v5p:4x4x4` or `h100:64` to devices that are not there."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.config.chips import CHIPS, Chip
from jaxlm.config.errors import UsageError

if TYPE_CHECKING:
    import jax

FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
SHAPES = {"v4": CUBES, "v5e": FLAT, "v5p": (*CUBES, "16x16x24"), "v6e": FLAT, "tpu7x": CUBES}
"""Slices that can be had, by chip."""
GPUS_PER_HOST = 8
EXTRAS = {"tpu": ("libtpu",), "cuda": ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")}
"""Platform, which is also the extra that brings its compiler -> the modules of which one is the compiler."""
TARGETS = {"h100": "h100_sxm.txtpb"}
"""What XLA needs to know of a GPU that it cannot ask."""


@dataclass(frozen=True)
class Topology:
    """Chips of one kind and how they hang together."""

    chip: Chip
    shape: tuple[int, ...]
    """Chips along each axis of the torus; hosts and GPUs of each for GPUs."""
    slices: int = 1
    """Tori of that shape, which only a network joins."""

    @property
    def chips(self) -> int:
        """How many there are."""
        return self.slices * prod(self.shape)

    def __str__(self) -> str:
        shape = self.chips if self.chip.platform == "cuda" else "x".join(map(str, self.shape))
        return f"{f'{self.slices}x' if self.slices > 1 else ''}{self.chip.name}:{shape}"


def parse(text: str) -> Topology:
    """A topology by name: of one slice as in `v5e:16x16`, of two as in `2xv5e:16x16`.

    Raises UsageError with all that are known.
    """
    if found := re.fullmatch(r"(\d+)x(v.*)", text):
        slices, one = int(found[1]), parse(found[2])
        if slices < 2 or not one.chip.network:
            why = (
                "a slice by itself has no number" if one.chip.network else f"no network of {one.chip.name} is known"
            )
            raise UsageError(f"no topology {text!r}: {why}; take {one}")
        return Topology(dataclasses.replace(one.chip, joined=one.chips), one.shape, slices)
    name, _, shape = text.partition(":")
    chip = CHIPS.get(name)
    if chip is not None and chip.platform == "cuda" and shape.isdigit():
        count = int(shape)
        if 0 < count <= GPUS_PER_HOST:
            return Topology(chip, (1, count))
        if count and count % GPUS_PER_HOST == 0:
            return Topology(chip, (count // GPUS_PER_HOST, GPUS_PER_HOST))
    if chip is not None and shape in SHAPES.get(name, ()):
        return Topology(chip, tuple(map(int, shape.split("x"))))
    raise UsageError(f"no topology {text!r}; there are\n{_known()}")


def _known() -> str:
    lines = [f"  {name}: {' '.join(f'{name}:{shape}' for shape in shapes)}" for name, shapes in SHAPES.items()]
    several = [name for name in SHAPES if CHIPS[name].network]
    lines += [f"  several slices of {', '.join(several)}: 2xv5e:16x16, ..."]
    gpus = [name for name, chip in CHIPS.items() if chip.platform == "cuda"]
    lines += [f"  {name}: {name}:1 to {name}:{GPUS_PER_HOST}, and multiples of {GPUS_PER_HOST}" for name in gpus]
    return "\n".join(lines)


def environment(topology: Topology, into: MutableMapping[str, str] = os.environ) -> None:
    """Sets what compilers read when they are loaded; to be called before jax is imported.

    The CPU stays the default backend, so that no accelerator of this machine is touched.
    """
    into["JAX_PLATFORMS"] = "cpu"
    into.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if topology.chip.platform == "tpu":
        # No metadata server is asked, other processes may load libtpu too, and no slice is looked for.
        into["TPU_SKIP_MDS_QUERY"] = "1"
        into["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
        into.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        into.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        into.setdefault("TPU_WORKER_ID", "0")
    else:
        # There is no device to time kernels on.
        into["XLA_FLAGS"] = f"{into.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()


def check_installed(topology: Topology) -> None:
    """Raises UsageError where the compiler is not installed, and says how to get it."""
    extra = topology.chip.platform
    if not any(map(_found, EXTRAS[extra])):
        raise UsageError(f"{topology} needs the compiler of the extra {extra!r}: pip install 'jaxlm[{extra}]'")


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


def devices(topology: Topology) -> list[jax.Device]:
    """The topology's devices, good for compiling only; a tpu7x chip has two.

    Raises UsageError where the compiler is not installed or does not know the topology.
    """
    check_installed(topology)
    import jax
    from jax.experimental import topologies

    chip = topology.chip
    shape = "x".join(map(str, topology.shape))
    if chip.platform == "cuda":
        target = Path(__file__).with_name(TARGETS[chip.name]).read_text()
        options = {"topology": f"1x{shape}", "target_config": target}
        return list(topologies.get_topology_desc(platform="cuda", **options).devices)
    options = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
    options |= {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip.name}:{shape}", **options)
    except jax.errors.JaxRuntimeError as error:
        reason = re.sub(r"^[A-Z_]+: ", "", str(error).splitlines()[0])
        raise UsageError(f"the compiler refuses {topology}: {reason}; there are\n{_known()}") from None
    return list(found.devices)
