"""Planted misconfigurations, compiled: applying the named fix and planning again improves the named figure."""

import pytest
from planning.small import experiment

from jaxlm.config.overrides import apply
from jaxlm.planning import topology

HEADS = ("--model.block.attention.heads", "4", "--model.block.attention.kv_heads", "4")
WIDE = ("--model.embed", "1024", "--train.batch", "16")
PLANTED = {
    "shards too thin": ("v5e:4x4", ("--where.mesh.fsdp", "16", *WIDE)),
    "gathers not hidden": ("v5p:2x2x1", ()),
    "recomputation": ("v5p:2x2x1", ()),
    "more micro-batches than needed": ("v5p:2x2x1", ("--where.micro_batches", "4", "--train.batch", "16")),
    "tensor shards wait": ("v5p:2x2x1", ("--where.mesh.fsdp", "1", "--where.mesh.tensor", "4", *HEADS, *WIDE)),
}


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("rule", PLANTED)
def test_the_fix_improves_the_figure(rule):
    from jaxlm.planning.explain import make_plan

    text, words = PLANTED[rule]
    tree = apply(experiment(), list(words))
    before, _ = make_plan(tree, topology.parse(text))
    finding = {each.rule: each for each in before.findings}[rule]
    fix = finding.fixes[0]
    after, _ = make_plan(apply(tree, list(fix)), topology.parse(text))
    assert after.figures[finding.figure] < 0.97 * before.figures[finding.figure]
