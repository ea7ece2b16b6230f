"""Sets of compiler flags: what they are for, who may take them, and what is said to the others."""

import re

import pytest

from jaxlm.config import flags
from jaxlm.config.chips import CHIPS, of_kind
from jaxlm.config.codec import from_json, to_json, what_hash, whole_hash
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import apply
from tests.base import experiment


def test_flags_of_a_chip():
    found = flags.choose(["async_gathers", "vmem"], CHIPS["v6e"])
    assert found["xla_tpu_scoped_vmem_limit_kib"] == 65_536
    assert found["xla_enable_async_all_gather"] is True
    assert flags.choose(["vmem"], CHIPS["v5p"]) == {"xla_tpu_scoped_vmem_limit_kib": 49_152}
    assert flags.choose([], CHIPS["h100"]) == {}


@pytest.mark.parametrize(
    ("name", "chip", "said"),
    [
        ("vmen", "v5p", "no set 'vmen'; nearest: vmem, vmem_96, "),
        ("vmem", "h100", "vmem is for v5e, v5p, v6e; h100 has one_order, gpu_pipelining (--where.flags alone"),
    ],
)
def test_flags_that_a_chip_does_not_have(name, chip, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        flags.choose([name], CHIPS[chip])


def test_every_set_is_documented_for_chips_that_exist():
    for one in flags.FLAGS.values():
        assert one.does
        assert one.gains
        assert set(one.chips) <= set(CHIPS)
        assert all(one.on(CHIPS[chip]) for chip in one.chips)


def test_chips_by_the_names_of_jax():
    for chip in CHIPS.values():
        assert of_kind(chip.kind) is chip
    # as jax/_src/pallas/mosaic/tpu_info.py pairs them
    for one, other in (("TPU v5", "TPU v5p"), ("TPU v5 lite", "TPU v5e"), ("TPU v6 lite", "TPU v6e")):
        assert of_kind(one) is of_kind(other) is not None
    assert of_kind("cpu") is of_kind("NVIDIA A100-SXM4-40GB") is None


def test_flags_of_devices():
    assert flags.of_devices(["vmem"], "TPU v5") == {"xla_tpu_scoped_vmem_limit_kib": 49_152}
    assert flags.of_devices(["vmem"], "cpu") == {}
    with pytest.raises(UsageError, match="v4 has async_gathers"):
        flags.of_devices(["vmem"], "TPU v4")


def test_flags_are_where_and_not_what():
    base = experiment()
    tree = apply(base, ["--where.flags", "async_gathers", "vmem"])
    assert tree.where.flags == ("async_gathers", "vmem")
    assert what_hash(tree) == what_hash(base)
    assert whole_hash(tree) != whole_hash(base)
    assert from_json(to_json(tree)) == tree
    assert apply(tree, ["--where.flags"]) == base
