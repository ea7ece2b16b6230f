"""What is looked at while a run trains does not change it: traces, telemetry, the account of its time."""

import math
import re
import time

import pytest

from jaxlm.runs.goodput import breakdown
from jaxlm.runs.journal import read_metrics


@pytest.fixture(scope="module")
def observed(ground):
    """(Run with a trace of steps 3 to 6 and telemetry every 25 steps, the process's seconds and output)."""
    start = time.monotonic()
    done = ground.finish("observed", "--profile", "3:6", "--where.every.telemetry", "25")
    return "observed", time.monotonic() - start, done.out


def test_the_first_step_is_shown_and_then_each_cadence(observed):
    shown = [int(step) for step in re.findall(r"step (\d+)/60  loss", observed[2])]
    assert shown == [1, *range(5, 61, 5)]


def test_a_trace_is_written(ground, observed):
    (trace,) = (ground.path / observed[0] / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 10_000


def test_telemetry_is_a_program_of_its_own(ground, observed, straight):
    run = observed[0]
    records = read_metrics(ground.path / run, ("telemetry",))
    # After each cadence, and at the end because the loop's actions end there too.
    assert [one["step"] for one in records] == [25, 50]
    for one in records:
        names = set(one) - {"kind", "step", "attempt", "time"}
        assert {name.split(".")[0] for name in names} == {"parameter", "gradient", "update", "tap"}
        assert any(name.startswith("tap.") for name in names)
        values = [each for name in names for each in (one[name] if isinstance(one[name], list) else [one[name]])]
        assert all(math.isfinite(value) and value >= 0 for value in values)
        layers = [name for name in names if ".period." in name]
        assert layers
        assert all(len(one[name]) == 2 for name in layers), "a value for each of two layers"
    assert ground.manifest(run)["lowered_step"] == ground.manifest(straight())["lowered_step"]
    losses = [ground.outcome(name)[1]["train", 20]["loss"] for name in (run, straight())]
    assert losses[0] == losses[1]


@pytest.mark.nightly
def test_the_lowered_step_is_sensitive(ground, straight):
    """Another micro-batch split is another program."""
    ground.finish("split", "--where.micro_batches", "1", "--train.steps", "5")
    assert ground.manifest("split")["lowered_step"] != ground.manifest(straight())["lowered_step"]


def test_seconds_add_up_to_the_wall_time(ground, observed):
    run, wall = observed[:2]
    events = [one for one in read_metrics(ground.path / run) if one.get("event") == "goodput"]
    first, last = events[0], events[-1]
    passed = last["time"] - first["time"]
    accounted = sum(last["seconds"].values()) - sum(first["seconds"].values())
    assert accounted == pytest.approx(passed, rel=0.01, abs=0.01)
    total = breakdown(events)
    assert total == last["seconds"]
    assert {"data", "step", "checkpoint", "evaluate", "compile", "other"} <= set(total)
    # The rest are imports, before there is a clock, and the end of the process.
    assert wall - 15 < sum(total.values()) < wall
