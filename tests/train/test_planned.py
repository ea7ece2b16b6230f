"""What a run says of the plan that is kept beside its experiment, in the beginning and in the end."""

import dataclasses
import re

import pytest

from jaxlm.cli import main
from jaxlm.config import Experiment, Train
from jaxlm.config.chips import CHIPS
from jaxlm.runs import plans
from jaxlm.runs.journal import read_metrics
from jaxlm.train import planned
from jaxlm.train.setup import make_setup
from tests.train.conftest import FIGURES, KNOWN, SHORT, plan
from tests.train.tiny import experiment

MODEL_FLOPS = 3 * 2 * (2 * (4 * 16 * 16 + 3 * 16 * 24) + 16 * 264) + 3 * 2 * 2 * 2 * 16 * 32 / 2
"""Of a token of the tiny model, by hand: three times the products with its matrices and the (tied) head, and, in
two layers, with half of the scores and values of 32 positions."""


PLANNED = {"step, ms": 100, "tokens/s": 2560, "MFU, %": 50}


def test_a_plan_beside_what_is_measured(host, ground, capsys):
    """A chip that is known, and flags that arrive."""
    plans.write(plan(SHORT, "host", 8, remat="full", flags=["good"]), ground.path / "plans")
    assert main(ground.words("run", "--where.flags", "good")) == 0
    out = capsys.readouterr().out
    assert "plan host:8: data 8, step 100 ms, MFU 50.0 %, peak 1.5 GiB; this run differs: " in out
    assert "this run differs: remat none (planned full)\n" in out
    (event,) = [one for one in read_metrics(ground.path / "run") if one.get("event") == "planned"]
    assert event["step"] == 6
    shown = table(out)
    assert [(name, row["planned"]) for name, row in shown.items()] == list(PLANNED.items())
    for name, row in shown.items():
        exact = event["figures"][name]
        assert exact["planned"] == pytest.approx(row["planned"])
        assert exact["measured"] == pytest.approx(row["measured"], rel=0.01)
        assert row["ratio"] == pytest.approx(exact["measured"] / exact["planned"], abs=0.006)
    seconds = event["figures"]["step, ms"]["measured"] / 1e3
    accounts = [one for one in read_metrics(ground.path / "run") if one.get("event") == "goodput"]
    spent = {one["step"]: one["seconds"]["step"] + one["seconds"]["data"] for one in accounts}
    after = [spent[2] - spent[1], (spent[4] - spent[2]) / 2, (spent[6] - spent[4]) / 2]
    assert seconds == pytest.approx(sorted(after)[1], abs=2e-3)  # accounts are rounded to milliseconds
    assert event["figures"]["tokens/s"]["measured"] == pytest.approx(8 * 32 / seconds)
    assert event["figures"]["MFU, %"]["measured"] == pytest.approx(100 * MODEL_FLOPS * 256 / (8 * 1e12 * seconds))
    assert ground.manifest("run")["compiler_options"] == {KNOWN: True}


def table(out: str) -> dict[str, dict[str, float]]:
    """The printed rows by name."""
    row = re.compile(r"s  (step, ms|tokens/s|MFU, %|peak, GiB) +([\d.,]+) +([\d.,]+) +([\d.]+)$", re.MULTILINE)
    numbers = {name: [float(word.replace(",", "")) for word in words] for name, *words in row.findall(out)}
    return {name: dict(zip(("planned", "measured", "ratio"), each)) for name, each in numbers.items()}


def test_a_damaged_plan_is_told_in_a_line_and_the_run_goes_on(ground, capsys):
    (ground.path / "plans").mkdir()
    (ground.path / "plans" / "tiny-cpu-8.json").write_text('{"what": ')
    assert main(ground.words("run")) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "plan" in line]
    assert line.endswith("s  plan left out: plans/tiny-cpu-8.json is no plan: jaxlm plan --save makes it again")
    assert (ground.path / "run" / "DONE").exists()


def found(tmp_path, kept: plans.Plan, **where) -> tuple[plans.Plan | None, list[str]]:
    """What a run of the tiny experiment on eight devices finds and says."""
    tree, said = experiment(), []
    tree = dataclasses.replace(tree, where=dataclasses.replace(tree.where, micro_batches=1, **where))
    plans.write(kept, tmp_path)
    return planned.find(make_setup(tree), tmp_path, said.append), said


def test_a_plan_that_is_followed_is_told_without_differences(tmp_path):
    kept = plan(["--where.micro_batches", "1"], "cpu", 8)
    one, (line,) = found(tmp_path, kept)
    assert one == kept
    assert line == "plan cpu:8: data 8, step 100 ms, MFU 50.0 %, peak 1.5 GiB"


def test_each_difference_is_told(tmp_path):
    kept = plan([], "cpu", 8, mesh={"data": 2, "fsdp": 4}, flags=["vmem", "async_gathers"])
    _, (line,) = found(tmp_path, kept, flags=("async_gathers", "vmem"))
    differences = "mesh data 8 (planned data 2 x fsdp 4); micro_batches 1 (planned 2)"
    assert line.endswith(f"; this run differs: {differences}")
    _, (line,) = found(tmp_path, plan([], "cpu", 8, micro_batches=1, flags=["vmem"]))
    assert line.endswith("; this run differs: flags none (planned vmem)")


def test_plans_of_others_are_not_told(tmp_path):
    assert found(tmp_path, plan(["--train.steps", "7"], "cpu", 8)) == (None, [])
    assert found(tmp_path / "a", plan([], "v5p", 8)) == (None, [])
    assert found(tmp_path / "b", plan([], "cpu", 4)) == (None, [])


def test_seconds_of_a_step_by_hand():
    assert planned.step_seconds([(0, 5.0), (1, 105.0), (5, 109.0), (10, 119.0), (15, 124.0), (20, 129.0)]) == 1.0
    assert planned.step_seconds([(0, 0.0), (1, 1.0)]) is None
    assert planned.step_seconds([(7, 0.0)]) is None


def test_figures_by_hand():
    """Of a chip whose peak a step of 100 ms would use by half; memory where devices tell it."""
    tree = Experiment(name="tiny", model=experiment().model, train=Train(batch=8, length=32))
    chip = dataclasses.replace(CHIPS["v5p"], peak=MODEL_FLOPS * 8 * 32 / (4 * 0.1) * 2)
    rows = planned.rows(FIGURES, tree, chip, 4, 0.2, 3 * 2**30)
    assert rows["step, ms"] == (100, 200)
    assert rows["tokens/s"] == (2560, 1280)
    assert rows["MFU, %"] == (50, pytest.approx(25))
    assert rows["peak, GiB"] == (1.5, 3)
    assert planned.rows(FIGURES, tree, None, 4, 0.2, None).keys() == {"step, ms", "tokens/s"}
