"""The committed plans are of the experiments as they are, and keep what is claimed of them."""

import json

import pytest

from jaxlm.config.codec import what_hash
from jaxlm.config.load import load_experiment
from jaxlm.config.memory import shape_of_mesh
from jaxlm.config.overrides import apply
from jaxlm.families.sizes import sized
from jaxlm.planning import topology
from jaxlm.runs.plans import find
from tests.experiments.scripts import EXPERIMENTS, load

plans = load("plans")
COMMITTED = plans.committed()
MFU = {
    "llama2_7b-v5p-64": 62.0,
    "llama2_7b-v5e-256": 59.0,
    "llama2_7b-h100-8": 45.0,
    "llama2_70b-v5p-512": 62.0,
    "llama3_8b-v6e-256": 42.0,
    "mixtral_8x7b-v5p-64": 45.0,
}
"""Percent, by the pessimistic estimate."""
UNDIVIDED = ("gpt2-1.5b", "gpt-j-6b", "codegen-6b", "falcon-7b", "gemma3-12b", "starcoder-15b")
THIN = {"llama3_405b-v5p-512", "jurassic1_178b-v5p-512", *(f"decoder-{name}-v5p-64" for name in UNDIVIDED)}
"""Whose heads do not divide among fsdp x tensor, so that a projection is stored along a narrow dimension."""

WHOLE = "decoder-qwen3-moe-30b-a3b-v5p-64"
"""Reduces 35 GiB of gradients without scattering them, for a reason that is not known; with experts on devices of
their own it does not, and waits four times as long."""
ENDS = "decoder-rwkv4-14b-v5p-64"
"""Sums the gradients of its embedding and head whole, in each of its micro-batches: the compiler does so with
[50277, 5120] scattered along the last dimension, in a program by itself too. Those of its layers are scattered."""


def test_every_case_is_committed_and_no_other():
    assert COMMITTED.keys() == plans.CASES.keys()


@pytest.mark.parametrize("name", plans.CASES)
def test_a_plan_is_of_the_experiment_as_it_is(name):
    file, *words = plans.CASES[name]
    tree = apply(*sized(load_experiment(str(EXPERIMENTS / "pretrain" / file)), words[2:]))
    assert COMMITTED[name]["what"] == what_hash(tree)[:16]
    assert COMMITTED[name]["command"] == ["jaxlm", "plan", f"experiments/pretrain/{file}", *words]


@pytest.mark.parametrize("name", COMMITTED)
def test_a_run_would_find_it_and_see_how_it_was_planned(name):
    one = COMMITTED[name]
    _, _, file, _, where, *words = one["command"]
    tree = apply(*sized(load_experiment(str(EXPERIMENTS.parent / file)), words))
    found = find(plans.PLANS, tree, one["chip"], one["devices"])
    assert found == one or name.endswith("-vmem")
    assert (one["topology"], one["chip"]) == (where, where.partition(":")[0])
    assert one["devices"] == topology.parse(where).chips
    how = (one["remat"], one["micro_batches"], tuple(one["flags"]))
    assert how == (tree.where.remat, tree.where.micro_batches, tree.where.flags)
    assert one["batch"] == [tree.train.batch, tree.train.length]
    mesh = {axis: size for axis, size in shape_of_mesh(tree, one["devices"]).items() if size > 1}
    assert one["mesh"] == mesh


@pytest.mark.parametrize("name", plans.CASES)
def test_what_a_plan_promises(name):
    one = COMMITTED[name]
    assert one["peak GiB"] <= one["memory GiB"]
    # Norms' scales and biases, a vector a layer, are not worth scattering.
    assert one["all-reduced in the layer loop GiB"] < 1e-3 or name in (*THIN, WHOLE, ENDS)
    assert one["mfu"] >= MFU.get(name, 0)


def test_the_7b_step():
    one = COMMITTED["llama2_7b-v5p-64"]
    assert one["peak GiB"] <= 55
    assert one["exposed GiB"] <= 17


def test_what_has_grown_is_told():
    one = COMMITTED["llama2_7b-v5p-64"]
    assert plans.grown(one, one) == []
    assert plans.grown(one, one | {"peak GiB": 1.02 * one["peak GiB"]}) == [
        f"peak GiB: {one['peak GiB']} -> {1.02 * one['peak GiB']}"
    ]
    assert plans.grown(one, one | {"all-reduced in the layer loop GiB": 0.5}) != []
    assert json.dumps(one)
