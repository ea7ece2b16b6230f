"""Plans that are kept beside an experiment: found by what is computed and where, refused when damaged."""

import dataclasses
import json

import pytest

from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure
from jaxlm.config.overrides import apply
from jaxlm.runs import plans
from tests.base import experiment

TREE = experiment()


def plan(**changes) -> plans.Plan:
    return {
        "experiment": "base",
        "what": what_hash(TREE)[:16],
        "topology": "v5p:2x2x1",
        "chip": "v5p",
        "devices": 4,
        "mesh": {"fsdp": 4},
        "micro_batches": 1,
        "remat": "none",
        "flags": ["async_gathers"],
        "step ms": 12.5,
        "mfu": 40.0,
        "peak GiB": 3.25,
    } | changes


def test_what_is_written_is_found(tmp_path):
    path = plans.write(plan(), tmp_path / "plans")
    assert path == tmp_path / "plans" / "base-v5p-4.json"
    assert plans.find(tmp_path / "plans", TREE, "v5p", 4) == plan()
    plans.write(plan(mfu=50.0), tmp_path / "plans")
    assert plans.find(tmp_path / "plans", TREE, "v5p", 4)["mfu"] == 50
    assert [one.name for one in (tmp_path / "plans").iterdir()] == ["base-v5p-4.json"]


def test_where_it_runs_is_no_other_experiment_and_what_it_computes_is(tmp_path):
    plans.write(plan(), tmp_path)
    assert plans.find(tmp_path, apply(TREE, ["--where.remat", "full"]), "v5p", 4) == plan()
    assert plans.find(tmp_path, apply(TREE, ["--train.batch", "32"]), "v5p", 4) is None
    plans.write(plan(what=""), tmp_path)
    assert plans.find(tmp_path, TREE, "v5p", 4) is None


def test_other_devices_names_and_places_have_none(tmp_path):
    plans.write(plan(), tmp_path)
    assert plans.find(tmp_path, TREE, "v5p", 8) is None
    assert plans.find(tmp_path, TREE, "v4", 4) is None
    assert plans.find(tmp_path / "plans", TREE, "v5p", 4) is None
    assert plans.find(tmp_path, dataclasses.replace(TREE, name="other"), "v5p", 4) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no plan"),
        ("[]", "is no plan"),
        ('{"what": "01', "is no plan"),
        ("\xff", "is no plan"),
        ("{}", "is damaged, 'what' is None"),
        (json.dumps(plan(what=7)), "is damaged, 'what' is 7"),
        (json.dumps(plan(mesh=None)), "is damaged, 'mesh' is None"),
        (json.dumps(plan(**{"step ms": 0})), "is damaged, 'step ms' is 0"),
        (json.dumps(plan(mfu="63")), "is damaged, 'mfu' is '63'"),
    ],
)
def test_a_damaged_plan_is_named(tmp_path, text, said):
    path = tmp_path / "base-v5p-4.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure) as error:
        plans.find(tmp_path, TREE, "v5p", 4)
    assert str(error.value).startswith(f"{path} {said}")
    assert "jaxlm plan --save" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_or_written_is_a_failure(tmp_path):
    (tmp_path / "base-v5p-4.json").mkdir()
    with pytest.raises(Failure, match="cannot read"):
        plans.find(tmp_path, TREE, "v5p", 4)
    with pytest.raises(Failure, match="cannot write"):
        plans.write(plan(), tmp_path / "no" / "such")
