"""Meshes of devices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import jax
import numpy as np
from jax.experimental import mesh_utils

from jaxlm.config import Mesh as MeshConfig
from jaxlm.config.errors import UsageError

AXES = ("replica", "pipeline", "data", "fsdp", "expert", "context", "tensor")
"""Mesh axes, slowest-varying first: neighboring devices, with the fastest links, share tensor shards."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Arrange devices (all of them by default) in a mesh; `data` = 0 takes what the other axes leave.

    Raises UsageError when the axes' product is not the number of devices, or `replica` not that of their slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {axis: getattr(config, axis) for axis in AXES}
    named = prod(size for size in sizes.values() if size)
    if sizes["data"] == 0 and len(devices) % named == 0:
        sizes["data"] = len(devices) // named
    if prod(sizes.values()) != len(devices):
        shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size != 1) or "of one device"
        raise UsageError(
            f"mesh {shape} does not fill {len(devices)} devices: choose axes whose product is {len(devices)}, "
            "or leave where.mesh.data at 0 and let the others divide it"
        )
    shape = tuple(sizes[axis] for axis in AXES)
    grid = _arranged(shape, devices)
    # Auto axes: the compiler propagates shardings from the constraints that Layout places.
    return jax.sharding.Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def _arranged(shape: tuple[int, ...], devices: Sequence) -> np.ndarray:
    """Devices in this shape, of which the first dimension is slices.

    On TPUs the others follow the torus of a slice; other devices are taken in their order, host by host.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if shape[0] != len(slices):
        raise UsageError(
            f"the {len(devices)} devices are in {len(slices)} slices, which a network joins: use "
            f"where.mesh.replica={len(slices)}"
        )
    within, between = (1, *shape[1:]), (shape[0], *(1 for _ in shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
