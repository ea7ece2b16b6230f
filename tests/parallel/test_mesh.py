"""Meshes of eight devices."""

import dataclasses

import jax
import pytest

from jaxlm.config import Mesh
from jaxlm.config.errors import UsageError
from jaxlm.parallel.mesh import AXES, _arranged, make_mesh


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Mesh(), (1, 1, 8, 1, 1, 1, 1)),
        (Mesh(fsdp=8), (1, 1, 1, 8, 1, 1, 1)),
        (Mesh(fsdp=2, tensor=2), (1, 1, 2, 2, 1, 1, 2)),
        (Mesh(data=4, tensor=2), (1, 1, 4, 1, 1, 1, 2)),
        (Mesh(expert=2, context=4), (1, 1, 1, 1, 2, 4, 1)),
        (Mesh(pipeline=4), (1, 4, 2, 1, 1, 1, 1)),
        (Mesh(replica=2, fsdp=2), (2, 1, 2, 2, 1, 1, 1)),
    ],
)
def test_data_takes_what_the_others_leave(config, shape):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("replica", "pipeline", "data", "fsdp", "expert", "context", "tensor")
    assert list(mesh.devices.flat) == jax.devices()
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("config", [Mesh(fsdp=3), Mesh(data=2, fsdp=2), Mesh(tensor=16), Mesh(fsdp=0)])
def test_a_mesh_that_does_not_fill_the_devices_is_refused(config):
    with pytest.raises(UsageError, match=r"does not fill 8 devices: choose axes whose product is 8"):
        make_mesh(config)


def test_neighbors_share_tensor_shards():
    assert [device.id for device in make_mesh(Mesh(tensor=2)).devices[0, 0, 0, 0, 0, 0]] == [0, 1]


def test_slices_are_replicas():
    """Devices of two slices, given in any order; TPUs say which slice they are in."""
    chips = [Chip(id=i, slice_index=i % 2, coords=(i // 2, 0, 0)) for i in range(8)]
    grid = _arranged(tuple({"replica": 2, "fsdp": 4}.get(axis, 1) for axis in AXES), chips)
    assert [[chip.slice_index for chip in slice_.flat] for slice_ in grid] == [[0] * 4, [1] * 4]
    with pytest.raises(UsageError, match=r"in 2 slices, which a network joins: use where\.mesh\.replica=2"):
        _arranged(tuple({"fsdp": 8}.get(axis, 1) for axis in AXES), chips)


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a TPU as a mesh asks for."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU of a test"
    process_index: int = 0
    core_on_chip: int = 0
