"""Loading a model takes little more memory than the model."""

import sys

import pytest

from tests.experiments.scripts import load

loading = load("loading")


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_peak_memory(tmp_path):
    found = loading.measured(tmp_path, layers=10)
    assert found.keys() == {(how, devices) for how in loading.FILES for devices in loading.DEVICES}
    for way, one in found.items():
        assert one["model"] > 350e6
        assert one["model"] <= one["peak"] <= loading.LIMIT * one["model"], way
    files = [len(list((tmp_path / str(number)).glob("*.safetensors"))) for number in range(2)]
    assert files[0] == 1 < files[1]
