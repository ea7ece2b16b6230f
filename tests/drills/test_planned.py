"""A run on one device, in a process of its own: the plan beside its experiment, and what was measured."""

import shutil

import pytest

from jaxlm.runs import plans
from jaxlm.runs.journal import read_metrics
from tests.drills.drill import TINY
from tests.train.conftest import plan

WORDS = ("--train.steps", "12")


@pytest.mark.nightly
def test_one_device(ground):
    here = ground.path / "beside"
    here.mkdir()
    shutil.copy(TINY, here)
    plans.write(plan(WORDS, "cpu", 1, remat="full"), here / "plans")
    out = ground.finish("planned", *WORDS, experiment=here / "tiny.py").out
    assert "plan cpu:1: one device, step 100 ms, MFU 50.0 %, peak 1.5 GiB; this run differs: remat none (pl" in out
    lines = [line.split() for line in out.splitlines()]
    assert [line[1:4] for line in lines if "ratio" in line] == [["planned", "measured", "ratio"]]
    (event,) = [one for one in read_metrics(ground.path / "planned") if one.get("event") == "planned"]
    assert event["figures"].keys() == {"step, ms", "tokens/s"}  # of a CPU neither peak nor memory is known
