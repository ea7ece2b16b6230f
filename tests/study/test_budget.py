"""Arms get as much of what is matched as the baseline, to 1 %."""

import pytest

from jaxlm.config import Arm
from jaxlm.config.errors import UsageError
from jaxlm.study.gate import derived
from jaxlm.study.plan import plan
from tests.study.studies import study

SMALLER = ("--model.layers=2",)


def test_tokens_by_steps():
    arms = (Arm("whole"), Arm("half", ("--train.batch=8",)))
    found = plan(study(arms=arms, differs=("train.batch",)))
    assert found["half"].train.steps == 2 * found["whole"].train.steps
    assert derived(found["half"])["tokens"] == derived(found["whole"])["tokens"]


def test_flops_by_steps():
    differs = ("model.layers", "parameters", "flops_per_token")
    found = plan(study(arms=(Arm("deep"), Arm("shallow", SMALLER)), match="flops", differs=differs))
    deep, shallow = derived(found["deep"]), derived(found["shallow"])
    assert shallow["flops"] == pytest.approx(deep["flops"], rel=0.01)
    assert shallow["tokens"] > 1.2 * deep["tokens"]
    # steps are whole: no other number of them is nearer
    off = abs(shallow["flops"] - deep["flops"])
    assert off <= 0.5 * shallow["flops"] / found["shallow"].train.steps


def test_parameters_by_a_width():
    arms = (Arm("gated"), Arm("plain", ("model.block.mlp:plain",)))
    given = {"arms": arms, "match": "parameters", "solve": "model.block.mlp.width", "multiple": 8}
    found = plan(study(**given, differs=("model.block.mlp", "flops_per_token")))
    assert found["plain"].model.block.mlp.width == 1056  # 704 * 3 / 2
    assert derived(found["plain"])["parameters"] == derived(found["gated"])["parameters"]


def test_seconds_as_they_were_measured():
    differs = ("model.layers", "parameters", "flops_per_token")
    asked = study(arms=(Arm("deep"), Arm("shallow", SMALLER)), match="seconds", differs=differs)
    found = plan(asked, {"deep": 0.3, "shallow": 0.2})
    assert found["shallow"].train.steps == 900
    with pytest.raises(UsageError, match="were not measured"):
        plan(asked)


def test_steps_are_left_as_they_are():
    found = plan(study(match="steps"))
    assert {one.train.steps for one in found.values()} == {600}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"solve": "model.position"}, "no integer field"),
        ({"solve": "model.block.attention.softcap"}, "no integer field"),
        ({"solve": "where.every.log"}, "do not depend on"),
        ({"solve": "model.embed", "match": "parameters", "multiple": 64}, "cannot get the baseline's"),
    ],
)
def test_what_cannot_be_solved(fields, said):
    arms = (Arm("deep"), Arm("shallow", ("--model.layers=2",)))
    differs = ("model.layers", "parameters", "flops_per_token")
    with pytest.raises(UsageError, match=said):
        plan(study(**{"arms": arms, "match": "flops", "differs": differs, **fields}))
