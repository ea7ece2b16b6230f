"""Planted misconfigurations: each is found and its fix applies; a clean step is left alone."""

import dataclasses

import pytest
from planning.test_estimate import LLAMA

from jaxlm import config
from jaxlm.config.check import check
from jaxlm.config.chips import CHIPS
from jaxlm.config.memory import bytes_per_device
from jaxlm.config.overrides import apply
from jaxlm.planning import changes, findings
from jaxlm.planning.collectives import Collective
from jaxlm.planning.hlo import Module

NOTHING = Module({"main": []}, "main", {"main": 1})
AXES = {"fsdp": tuple(range(16)), "tensor": (0, 1)}


def experiment(remat="none", micro_batches=1, rows=256, **mesh) -> config.Experiment:
    where = config.Where(mesh=config.Mesh(**mesh), remat=remat, micro_batches=micro_batches)
    train = config.Train(steps=10, batch=rows, length=4096)
    return config.Experiment(name="planted", model=LLAMA, train=train, precision="bfloat16", where=where)


def one(kind: str, axis: str = "fsdp", gib: float = 1.0, times: int = 32, hidden: bool = False) -> Collective:
    return Collective(kind, (axis,), AXES[axis], gib * 2**30 / times, 0, times, hidden, between=int(hidden))


def found(tree, *some, flags=("async_gathers", "vmem"), seconds=2.0, ratio=1.0, peak=30, module=NOTHING):
    tree = dataclasses.replace(tree, where=dataclasses.replace(tree.where, flags=flags))
    step = findings.Step(
        experiment=tree,
        chip=CHIPS["v5p"],
        devices=64,
        module=module,
        collectives=some,
        seconds=seconds,
        products=ratio * 1e15,
        model_flops=1e15,
        peak=peak * 2**30,
    )
    return {each.rule: each for each in findings.findings(step)}, findings.figures(step)


CLEAN = experiment(fsdp=16)


def test_a_clean_step_is_left_alone():
    rules, _ = found(CLEAN, one("all-gather", gib=20, hidden=True), one("reduce-scatter", gib=12))
    assert rules == {}


PLANTED = {
    "shards too thin": (
        experiment(fsdp=64),
        [one("all-reduce", gib=36)],
        {},
        [("--where.mesh.fsdp", "16")],
    ),
    "gathers not hidden": (
        CLEAN,
        [one("all-gather", gib=24)],
        {"flags": ("vmem",)},
        [("--where.flags", "vmem", "async_gathers")],
    ),
    "tensor shards wait": (
        experiment(fsdp=16, tensor=4),
        [one("all-reduce", "tensor", gib=80)],
        {},
        [("--where.mesh.tensor", "2", "--where.mesh.fsdp", "32")],
    ),
    "windowed products": (
        experiment(fsdp=16, tensor=4),
        [one("collective-permute", "tensor", gib=1, hidden=True)] * 50,
        {},
        [("--where.flags", "async_gathers", "vmem", "plain_products")],
    ),
    "recomputation": (experiment("full", fsdp=16), [], {"ratio": 1.33}, None),
    "more micro-batches than needed": (
        experiment("full", micro_batches=4, fsdp=16),
        [one("all-gather", gib=80, hidden=True)],
        {},
        [("--where.micro_batches", "1")],
    ),
    "default vector memory": (
        CLEAN,
        [],
        {"flags": ("async_gathers",)},
        [("--where.flags", "async_gathers", "vmem")],
    ),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_planted(rule):
    tree, some, options, fixes = PLANTED[rule]
    rules, figures = found(tree, *some, **options)
    assert set(rules) == {rule}
    finding = rules[rule]
    assert fixes is None or list(finding.fixes) == fixes
    assert finding.value == figures[finding.figure] > 0
    for fix in finding.fixes:
        check(apply(tree, list(fix)))


def test_of_the_policies_that_fit_the_one_that_saves_most():
    tree = experiment("full", fsdp=16)
    rules, _ = found(tree, ratio=1.33)
    held = {
        policy: bytes_per_device(changes.changed(tree, remat=policy), 64)["total"] for policy in changes.policies()
    }
    room = changes.HEADROOM * CHIPS["v5p"].memory - 30 * 2**30 + held["full"]
    most = max((policy for policy in held if held[policy] <= room), key=held.__getitem__)
    assert rules["recomputation"].fixes == (("--where.remat", most),)
    assert held["full"] < held[most] < held["none"]


@pytest.mark.parametrize("rule", ["recomputation", "more micro-batches than needed"])
def test_what_does_not_fit_is_not_advised(rule):
    tree, some, options, _ = PLANTED[rule]
    rules, _ = found(tree, *some, **{**options, "peak": 87})
    assert rules == {}


def test_masked_scores_are_no_recomputation():
    assert found(CLEAN, ratio=1.6)[0] == {}


def test_short_steps_are_not_worth_minutes_of_compiling():
    assert found(CLEAN, flags=("async_gathers",), seconds=0.01)[0] == {}


def test_flags_that_are_there_are_not_advised():
    rules, _ = found(CLEAN, one("all-gather", gib=24))
    assert rules["gathers not hidden"].fixes == ()


# --- the smallest change that fits -------------------------------------------------------------------------


def smallest(tree, needed, available, devices=64):
    return changes.smallest_change(tree, devices, needed * 2**30, available * 2**30)


def test_rematerialization_first_then_micro_batches_then_shards():
    assert smallest(experiment(fsdp=16), 200, 100)[:1] == ("--where.remat",)
    assert smallest(experiment("full", fsdp=16), 60, 45)[:1] == ("--where.micro_batches",)
    # the closed form is 101.5 GiB, almost all of it 16 bytes a parameter; on four shards 26.2
    assert smallest(experiment("full", fsdp=1, rows=64), 200, 64) == ("--where.mesh.fsdp", "4")
    pinned = experiment("full", data=64, fsdp=1, rows=64)
    assert smallest(pinned, 200, 64) == ("--where.mesh.data", "0", "--where.mesh.fsdp", "4")


def test_what_no_change_can_make_fit():
    assert smallest(experiment("full", fsdp=64, rows=64), 500, 1) == ()


def test_changes_divide_rows_devices_and_features():
    tree = experiment("none", fsdp=1, rows=96)
    for needed in (100, 200, 400, 800, 1600):
        words = smallest(tree, needed, 60, devices=32)
        where = apply(tree, list(words)).where
        inner = where.mesh.fsdp * where.mesh.tensor
        assert 32 % inner == 0
        assert 96 % (32 * where.micro_batches) == 0


def test_policies_are_those_of_the_config():
    assert "full" in changes.policies()
    for policy in changes.policies():
        dataclasses.replace(CLEAN.where, remat=policy)
