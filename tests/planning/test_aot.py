"""The step that is planned is the step that runs; real compilers for chips that are not there."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from planning.small import experiment

from jaxlm import config
from jaxlm.config.distillation import LIKELY
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.flops import parameters
from jaxlm.planning import aot, cudnn, topology
from jaxlm.train import feed
from jaxlm.train.setup import make_setup


@pytest.mark.parametrize("told", ["nothing", "labels", "likeliest"])
def test_the_batch_is_that_of_the_feed(told):
    """Where texts have labels they are there for any objective, one of your own too."""
    tree = dataclasses.replace(experiment(), data=config.Labeled()) if told == "labels" else experiment()
    layout = make_setup(tree, jax.devices()[:4]).call.layout
    if told == "likeliest":
        tree = dataclasses.replace(tree, objective=config.Distillation(likeliest=5))

    class Rows:
        more = {"nothing": {}, "labels": {"labels": ()}, "likeliest": dict.fromkeys(LIKELY, (5,))}[told]
        size, length = tree.train.batch, tree.train.length

        def batch(self, step, rows):
            shape = (rows.stop - rows.start, self.length)
            found = {name: np.zeros(shape, np.int32) for name in feed.FIELDS}
            found |= {name: np.zeros((*shape, *depth), np.int32) for name, depth in self.more.items()}
            found |= {name: found[name].astype(np.float32) for name in ("weights", "likely") if name in found}
            return found | {"rows": np.zeros(shape[:1], np.int32)}

    assert aot.abstract_batch(tree, layout) == feed.abstract_batch(Rows(), layout)


def test_a_step_for_devices_that_are_there():
    tree = experiment()
    compiled = aot.compile_step(tree, jax.devices()[:4])
    assert compiled.mesh["fsdp"] == 4
    # float32, a quarter each; scales of norms are whole on every device
    norms = 4 * (2 * 3 + 1) * 256
    assert compiled.parts["parameters"] == pytest.approx(4 * parameters(tree.model)["total"] / 4, abs=norms)
    assert compiled.parts["optimizer"] == pytest.approx(2 * compiled.parts["parameters"], rel=0.001)
    assert compiled.parts["batch"] == 6 * 4 * 128 + 4  # a row of six fields of four bytes, and its number
    assert compiled.arguments == pytest.approx(sum(compiled.parts.values()), rel=0.01)
    assert "ENTRY" in compiled.text
    assert compiled.products > 0


def test_a_mesh_that_does_not_match_the_devices():
    with pytest.raises(UsageError, match="8 devices"):
        aot.compile_step(dataclasses.replace(experiment(), where=mesh(3)), jax.devices())


def mesh(fsdp):
    where = experiment().where
    return dataclasses.replace(where, mesh=dataclasses.replace(where.mesh, fsdp=fsdp))


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (78.65G) "
            "exceeds available HBM (15.75G).",
            78.65 + 1,
            15.75,
        ),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 104.09G of 95.74G hbm.", 104.09, 95.74),
    ],
)
def test_what_compilers_say_when_it_does_not_fit(message, needed, available):
    error = aot._refused(RuntimeError(message), 2**30)
    assert isinstance(error, aot.DoesNotFit)
    assert error.needed == pytest.approx(needed * 2**30)
    assert error.available == pytest.approx(available * 2**30)
    assert f"{needed - available:.1f} GiB too little" in str(error)


def test_other_refusals_are_told_as_they_are():
    error = aot._refused(RuntimeError("UNIMPLEMENTED: no such layout\nat line 3"), 0)
    assert type(error) is Failure
    assert "no such layout" in str(error)


def test_cudnn_is_assumed_while_tracing_only():
    before = fused_attention_stablehlo.check_cudnn_version
    attend = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn")
    q = jax.ShapeDtypeStruct((2, 256, 4, 128), jnp.bfloat16)
    with cudnn.assumed():
        assert fused_attention_stablehlo.check_cudnn_version() == 90_700
        text = jax.jit(attend).trace(q, q, q).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in text
    assert fused_attention_stablehlo.check_cudnn_version is before


def planned(text, **where):
    from jaxlm.planning.explain import make_plan

    tree = experiment()
    changed = dataclasses.replace(tree.where, **where)
    return make_plan(dataclasses.replace(tree, where=changed), topology.parse(text))


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
def test_a_step_for_a_tpu_that_is_not_there():
    plan, _ = planned("v5p:2x2x1")
    layers, embed, width, heads = 3, 256, 512, 256
    matrices = 4 * embed * heads + 3 * embed * width
    # a weight is gathered in bfloat16 once forward and once backward, each chip sends three quarters of it
    loop = sum(one.bytes for one in plan.traffic if one.kind == "all-gather" and one.where == "in a loop")
    assert loop == pytest.approx(2 * layers * matrices * 2 * 3 / 4, rel=0.05)
    assert plan.devices == 4
    assert plan.estimate.compute > 0
    assert sum(plan.memory.values()) == pytest.approx(plan.peak, rel=0.01)
    assert plan.memory["parameters"] == pytest.approx(plan.memory["optimizer"] / 2, rel=0.01)
    assert json.loads(json.dumps(plan.json()))["topology"] == "v5p:2x2x1"
    fixes = {one.rule: one.fixes for one in plan.findings}
    assert fixes["gathers not hidden"] == (("--where.flags", "async_gathers"),)
    # applying the fix and planning again improves the named figure
    again, _ = planned("v5p:2x2x1", flags=("async_gathers",))
    assert again.figures["exposed gather bytes"] < 0.7 * plan.figures["exposed gather bytes"]
    assert again.estimate.model_flops == plan.estimate.model_flops


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
def test_a_step_for_two_slices():
    """Each sends its shards of the gradients to the other over the network, once, and nothing else of size."""
    tree = experiment()
    tree = dataclasses.replace(
        tree,
        train=dataclasses.replace(tree.train, batch=8),
        where=dataclasses.replace(tree.where, mesh=dataclasses.replace(tree.where.mesh, fsdp=4, replica=2)),
    )
    from jaxlm.planning.explain import make_plan

    plan, _ = make_plan(tree, topology.parse("2xv5e:2x2"))
    assert plan.mesh == {"replica": 2, "fsdp": 4}
    between = [one for one in plan.traffic if "replica" in one.axes]
    matrices = (parameters(tree.model)["total"] - 7 * 256) * 2 / 4
    assert {one.where for one in between} == {"once"}
    assert sum(one.bytes for one in between) == pytest.approx(matrices, rel=0.05)
    network = topology.CHIPS["v5e"].network
    assert sum(one.seconds for one in between) == pytest.approx(matrices / network, rel=0.05)


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
def test_a_step_for_a_gpu_that_is_not_there():
    pytest.importorskip("jax_plugins.xla_cuda12")
    plan, _ = planned("h100:4")
    gathered = [one for one in plan.traffic if one.kind == "all-gather" and one.where == "in a loop"]
    assert gathered
    assert all(one.hidden for one in gathered)
    assert 0 < plan.estimate.compute < 1e-2
    assert "roofline" in plan.estimate.calibration


@pytest.mark.nightly
@pytest.mark.usefixtures("compilers")
def test_too_large_says_by_how_much_and_what_to_change():
    tree = experiment()
    model = dataclasses.replace(tree.model, vocab=1_000_000, embed=4096)
    large = dataclasses.replace(tree, model=model, where=mesh(1))
    from jaxlm.planning.explain import make_plan

    large = dataclasses.replace(large, train=dataclasses.replace(large.train, batch=64))
    with pytest.raises(Failure, match=r"GiB too little; the smallest change.*--where.mesh.fsdp"):
        make_plan(large, topology.parse("v5e:8x8"))
