"""What is kept of a plan: figures in the units of their names, and all that a run reads."""

import json

from cli.test_plan import example

from jaxlm.planning.kept import kept
from jaxlm.runs import plans


def test_figures_by_hand():
    figures = {"exposed bytes": 2**31, "gathered bytes": 3 * 2**30, "all-reduced bytes in the layer loop": 0}
    plan = json.loads(json.dumps(example(figures=figures).json()))
    one = kept(plan, ["jaxlm", "plan", "llama.py"])
    assert one["command"] == ["jaxlm", "plan", "llama.py"]
    assert (one["experiment"], one["what"]) == ("llama", "0123")
    assert (one["topology"], one["chip"], one["devices"]) == ("v5p:4x4x4", "v5p", 64)
    assert (one["mesh"], one["batch"], one["micro_batches"]) == ({"data": 4, "fsdp": 16}, [256, 4096], 2)
    assert (one["remat"], one["flags"]) == ("full", ["async_gathers"])
    assert (one["step ms"], one["compute ms"], one["attention ms"], one["exposed ms"]) == (2350, 2000, 300, 50)
    assert (one["mfu"], one["peak GiB"], one["memory GiB"]) == (61.7, 50, 100)
    assert (one["exposed GiB"], one["gathered GiB"], one["chip-hours"]) == (2, 3, 22_000)
    assert kept(example(figures=figures).json(), one["command"]) == one


def test_a_run_can_read_it(tmp_path):
    figures = {"exposed bytes": 0, "gathered bytes": 0, "all-reduced bytes in the layer loop": 0}
    one = kept(example(figures=figures).json(), [])
    assert plans.read(plans.write(one, tmp_path)) == one
