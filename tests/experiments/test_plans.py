"""The committed plans are of the experiments as they are, and keep what is claimed of them."""

import json

import pytest

from jaxlm.config.codec import what_hash
from jaxlm.config.load import load_experiment
from tests.experiments.scripts import EXPERIMENTS, load

plans = load("plans")
COMMITTED = plans.committed()
MFU = {
    "llama2_7b-v5p-64": 62.0,
    "llama2_7b-v5e-256": 59.0,
    "llama2_70b-v5p-512": 62.0,
}
"""Percent, by the pessimistic estimate."""


def test_every_case_is_committed_and_no_other():
    assert COMMITTED.keys() == plans.CASES.keys()


@pytest.mark.parametrize("name", plans.CASES)
def test_a_plan_is_of_the_experiment_as_it_is(name):
    words = plans.CASES[name]
    assert COMMITTED[name]["what"] == what_hash(load_experiment(str(EXPERIMENTS / "pretrain" / words[0])))[:16]
    assert COMMITTED[name]["command"] == ["jaxlm", "plan", f"experiments/pretrain/{words[0]}", *words[1:]]


@pytest.mark.parametrize("name", plans.CASES)
def test_what_a_plan_promises(name):
    one = COMMITTED[name]
    assert one["peak GiB"] <= one["memory GiB"]
    assert one["all-reduced in the layer loop GiB"] == 0
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
