"""Meshes of eight devices."""

import jax
import pytest

from jaxlm.config import Mesh
from jaxlm.config.errors import UsageError
from jaxlm.parallel.mesh import make_mesh


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Mesh(), (1, 8, 1, 1, 1, 1)),
        (Mesh(fsdp=8), (1, 1, 8, 1, 1, 1)),
        (Mesh(fsdp=2, tensor=2), (1, 2, 2, 1, 1, 2)),
        (Mesh(data=4, tensor=2), (1, 4, 1, 1, 1, 2)),
        (Mesh(expert=2, context=4), (1, 1, 1, 2, 4, 1)),
        (Mesh(pipeline=4), (4, 2, 1, 1, 1, 1)),
    ],
)
def test_data_takes_what_the_others_leave(config, shape):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("pipeline", "data", "fsdp", "expert", "context", "tensor")
    assert list(mesh.devices.flat) == jax.devices()
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("config", [Mesh(fsdp=3), Mesh(data=2, fsdp=2), Mesh(tensor=16), Mesh(fsdp=0)])
def test_a_mesh_that_does_not_fill_the_devices_is_refused(config):
    with pytest.raises(UsageError, match=r"does not fill 8 devices: choose axes whose product is 8"):
        make_mesh(config)


def test_neighbors_share_tensor_shards():
    assert [device.id for device in make_mesh(Mesh(tensor=2)).devices[0, 0, 0, 0, 0]] == [0, 1]
