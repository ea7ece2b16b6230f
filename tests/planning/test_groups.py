"""Groups of devices in every form that compilers print, against numpy and by hand."""

import numpy as np
import pytest

from jaxlm.planning.groups import axes_of, group


@pytest.mark.parametrize(
    ("attributes", "members"),
    [
        ("replica_groups={{0,2},{1,3}}, x={1}", (0, 2)),
        ("replica_groups=[2,4]<=[8], use", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0), use", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, use", (0, 1, 2, 3)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, use", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, use", tuple(range(8))),
        ("replica_groups=mesh['a'=8] {'a':(1)2}, use", (0, 4)),
        ("replica_groups=mesh['a'=8] {'a':(4)2}, use", (0, 1)),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, use", (0, 2)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, use", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}, use", (0, 4)),
        ("source_target_pairs={{0,1},{1,2},{2,0},{3,4},{4,5},{5,3}}", (0, 1, 2)),
        ("source_target_pairs={{0,1},{1,2}}", (0, 1, 2)),
        ("no groups at all", tuple(range(8))),
    ],
)
def test_forms(attributes, members):
    assert group(attributes, 8) == members


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 2, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_transposed_iota_as_numpy_has_it(shape, order):
    count = int(np.prod(shape))
    flat = np.arange(count).reshape(shape).transpose(order).reshape(-1, 2)
    text = f"replica_groups=[{count // 2},2]<=[{','.join(map(str, shape))}]T({','.join(map(str, order))})"
    assert group(text, count) == tuple(flat[0])


def test_mesh_axes_by_their_first_group():
    mesh = {"data": 4, "fsdp": 16, "tensor": 1}
    numbers = np.arange(64).reshape(4, 16)
    assert axes_of(tuple(numbers[0]), mesh) == ("fsdp",)
    assert axes_of(tuple(numbers[:, 0]), mesh) == ("data",)
    assert axes_of(tuple(range(64)), mesh) == ("data", "fsdp")
    assert axes_of((0, 1, 2, 3, 4, 5, 6, 7), mesh) == ()  # half of an axis is none
    assert axes_of((0,), mesh) == ()
