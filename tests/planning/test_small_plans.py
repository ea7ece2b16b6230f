"""Small steps planned for chips that are not there, beside what they came to when last changed on purpose.

JAXLM_WRITE_PLANS=1 python -m pytest tests/planning/test_small_plans.py      # keep what is found now
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from planning.small import experiment

from jaxlm.planning import topology

KEPT = Path(__file__).with_name("small_plans.json")
SLACK = 1.01


@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("text", ["v5p:2x2x1", "v6e:2x2", pytest.param("h100:4", marks=pytest.mark.nightly)])
def test_nothing_has_grown(text):
    from jaxlm.planning.explain import make_plan

    if text.startswith("h100"):
        pytest.importorskip("jax_plugins.xla_cuda12")
    tree = experiment()
    where = dataclasses.replace(tree.where, remat="query+key+value+attention+middle+gate+up")
    plan, _ = make_plan(dataclasses.replace(tree, where=where), topology.parse(text))
    found = {
        "peak": plan.peak,
        "exposed": round(plan.figures["exposed bytes"]),
        "gathered": round(plan.figures["gathered bytes"]),
        "all-reduced in the layer loop": round(plan.figures["all-reduced bytes in the layer loop"]),
        "step": plan.estimate.step,
    }
    assert found["gathered"] > 0
    assert plan.estimate.compute > 0
    every = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if os.environ.get("JAXLM_WRITE_PLANS"):
        KEPT.write_text(json.dumps(every | {text: found}, indent=1) + "\n")
        return
    grown = {name: (every[text][name], value) for name, value in found.items() if value > SLACK * every[text][name]}
    assert not grown
