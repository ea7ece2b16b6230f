"""Names of topologies and what they need."""

import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.config.errors import UsageError
from jaxlm.planning import topology


@pytest.mark.parametrize(
    ("text", "chips", "shape"),
    [
        ("v5p:4x4x4", 64, (4, 4, 4)),
        ("v6e:16x16", 256, (16, 16)),
        ("h100:8", 8, (1, 8)),
        ("h100:64", 64, (8, 8)),
        ("2xv5e:16x16", 512, (16, 16)),
    ],
)
def test_known(text, chips, shape):
    found = topology.parse(text)
    assert (found.chips, found.shape, str(found)) == (chips, shape, text)


@pytest.mark.parametrize(
    "text",
    ["v5p", "v5p:4x4", "v5p:3x3x3", "v9:2x2", "h100:12", "h100:0", "h100:2x2", "2xh100:8", "2xv5p:3x3x3", ""],
)
def test_unknown_ones_list_the_known(text):
    with pytest.raises(UsageError, match="v5p:4x4x4") as error:
        topology.parse(text)
    assert all(name in str(error.value) for name in CHIPS)


def test_every_chip_has_shapes_and_facts():
    for chip in CHIPS.values():
        assert chip.platform == "cuda" or topology.SHAPES[chip.name]
        assert chip.peak > 1e14
        assert chip.wire() > 1e11
        # the compiler's cycles are calibrated by a product that takes FLOPs / peak
        assert chip.platform == "cuda" or 1e5 < chip.peak / chip.clock < 1e6


def test_environment_keeps_the_cpu_as_the_default():
    before = {"JAX_PLATFORMS": "tpu", "LIBTPU_INIT_ARGS": "--mine=1", "XLA_FLAGS": "--yours"}
    tpu = dict(before)
    topology.environment(topology.parse("v5e:2x2"), tpu)
    assert tpu["JAX_PLATFORMS"] == "cpu"
    assert tpu["ALLOW_MULTIPLE_LIBTPU_LOAD"] == tpu["TPU_SKIP_MDS_QUERY"] == "1"
    assert tpu["LIBTPU_INIT_ARGS"] == "--mine=1"
    assert tpu["XLA_FLAGS"] == "--yours"  # a TPU flag there would end the process
    gpu = dict(before)
    topology.environment(topology.parse("h100:8"), gpu)
    assert gpu["XLA_FLAGS"] == "--yours --xla_gpu_autotune_level=0"


def test_a_missing_compiler_is_one_line(monkeypatch):
    for platform, text in (("tpu", "v5e:2x2"), ("cuda", "h100:8")):
        monkeypatch.setitem(topology.EXTRAS, platform, ("no_such_package.inner",))
        with pytest.raises(UsageError, match=rf"pip install 'jaxlm\[{platform}\]'"):
            topology.check_installed(topology.parse(text))


def test_either_of_two_compilers_is_enough(monkeypatch):
    monkeypatch.setitem(topology.EXTRAS, "cuda", ("no_such_package.inner", "json"))
    topology.check_installed(topology.parse("h100:8"))


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
def test_the_compiler_knows_every_shape_of_the_table():
    for name, shapes in topology.SHAPES.items():
        for shape in shapes:
            where = topology.parse(f"{name}:{shape}")
            found = topology.devices(where)
            assert len(found) == where.chips * (2 if name == "tpu7x" else 1)
            assert {device.device_kind for device in found} == {CHIPS[name].kind}


@pytest.mark.nightly
def test_gpus_by_host():
    pytest.importorskip("jax_plugins.xla_cuda12")
    found = topology.devices(topology.parse("h100:16"))
    assert len(found) == 16
    assert {device.device_kind for device in found} == {CHIPS["h100"].kind}


@pytest.mark.parametrize(
    ("text", "said"), [("1xv5e:2x2", "take v5e:2x2"), ("2xv4:2x2x1", "no network of v4 is known")]
)
def test_slices_that_cannot_be_planned(text, said):
    with pytest.raises(UsageError, match=said):
        topology.parse(text)


def test_a_network_joins_slices():
    chip = topology.parse("2xv5e:2x2").chip
    assert chip.wire(range(4)) == 4 * 45e9
    assert chip.wire((0, 4)) == 3.125e9  # one chip of each slice
    assert chip.wire(range(8)) == 4 * 3.125e9  # all four of each
