"""A pipeline trains as one device does: stages, rounds, and products with the other axes."""

import dataclasses
import functools
import re
from math import prod

import jax
import numpy as np
import pytest

from jaxlm.config import Balance, Dropless, Every, Mesh, Moe, Pattern, Pipeline, Stream
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import parameters, staged
from jaxlm.config.memory import bytes_per_device
from jaxlm.data import rows as row_data
from jaxlm.layers.axes import logical_axes
from jaxlm.layers.contracts import Call
from jaxlm.layers.names import flatten, partition
from jaxlm.models import build
from jaxlm.objectives.prediction import Prediction
from jaxlm.parallel.layout import single_device
from jaxlm.planning import hlo
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import fingerprint
from jaxlm.train.held_out import make_evaluate
from jaxlm.train.initial import initial_state
from jaxlm.train.setup import make_setup
from jaxlm.train.step import make_gradient
from tests.tiny import KINDS, close, layout, packed_batch, random_model
from tests.train.test_meshes import compiled, distances, documents, load
from tests.train.tiny import experiment

STEPS = 3
ROWS = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
ONE = (Mesh(), 2, Pipeline(), "none")
AT_NIGHT = "pipeline 4, tensor 2"
COVERED = (AT_NIGHT, "data 2, fsdp 2, pipeline 2")
"""Whose axes the others have too."""
MESHES = {
    "data 2, fsdp 2, pipeline 2": (Mesh(fsdp=2, pipeline=2), 2, Pipeline(2), "full"),
    "pipeline 4, tensor 2": (Mesh(pipeline=4, tensor=2), 1, Pipeline(8), "none"),
    "pipeline 4 twice around, fsdp 2": (Mesh(pipeline=4, fsdp=2), 1, Pipeline(4, 2), "none"),
}
"""Mesh of eight devices, micro-batches, pipeline, rematerialization."""
CONTEXT = (Mesh(pipeline=2, context=2, tensor=2), 2, Pipeline(4, 2), "query+key+value+attention")
MIXED = (Mesh(pipeline=2, expert=2), 1, Pipeline(4, 2), "none")


def make(where, **model):
    """The tiny experiment in eight layers on a mesh."""
    mesh, micro, flow, remat = where
    tiny = experiment()
    tiny = dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, **{"layers": 8} | model),
        train=dataclasses.replace(tiny.train, batch=16, seed=1),
        where=dataclasses.replace(tiny.where, mesh=mesh, micro_batches=micro, pipeline=flow, remat=remat),
    )
    return make_setup(tiny, jax.devices()[: 1 if where == ONE else 8])


@functools.cache
def train(where, **model):
    """(Final state, metrics of each step, gradients of the first by name, the compiled step)."""
    setup = make(where, **model)
    state = initial_state(setup)
    step = compiled(setup, micro_batches=where[1], observe=lambda _, gradients, __: flatten(gradients))
    step = step.lower(state, feed.global_batch(ROWS, setup.call.layout, 0)).compile()
    found, first = [], None
    for index in range(STEPS):
        state, metrics = step(state, feed.global_batch(ROWS, setup.call.layout, index))
        metrics = jax.device_get(metrics)
        first = first or {name: metrics[name] for name in flatten(state.model)}
        found.append({name: float(metrics[name]) for name in ("loss", *setup.objective.coefficients)})
    return state, found, first, hlo.parse(step.as_text())


def agree(where, **model):
    _, expected, gradients, _ = train(ONE, **model)
    _, found, others, _ = train(where, **model)
    for name in expected[0]:
        np.testing.assert_allclose([m[name] for m in found], [m[name] for m in expected], rtol=2e-6, err_msg=name)
    far = {name: far for name, far in distances(gradients, others).items() if far > 1}
    assert not far


@pytest.mark.parametrize(
    "mesh", [pytest.param(mesh, marks=pytest.mark.nightly if mesh in COVERED else ()) for mesh in MESHES]
)
def test_pipelines_agree(mesh):
    agree(MESHES[mesh])


@pytest.mark.nightly
def test_a_pipeline_of_rings_agrees():
    agree(CONTEXT)


@pytest.mark.parametrize("kind", [pytest.param("encoder_decoder", marks=pytest.mark.nightly), "rwkv4"])
def test_any_stack_may_be_in_stages(kind):
    """Both stacks of an encoder-decoder, whose memory goes with its rows; layers that are no blocks."""
    model, batch, objective = random_model(KINDS[kind]), packed_batch(KINDS[kind]), Prediction()
    found = []
    for where in (single_device(), layout(pipeline=2, fsdp=2)):
        gradient = make_gradient(objective, Call(where, pipeline=Pipeline(2)))
        trained, frozen = partition(model, lambda name, leaf: True)
        given = (trained, {"model": frozen}, batch, objective.weights(batch), jax.random.key(0))
        found.append(jax.jit(gradient)(*given))
    (wanted, (loss, _)), (got, (other, _)) = jax.device_get(found)
    assert other == pytest.approx(loss, rel=2e-6)
    close(got, wanted)


@pytest.mark.nightly
def test_mixtures_between_layers_that_are_no_stages():
    """Terms count once; what stands before and after the stack's repeats runs on each stage for its own rows."""
    block = experiment().model.block
    mixture = Moe(experts=4, top_k=2, width=24, dispatch=Dropless(), balance=Balance(0.01), router_z=1e-3)
    pattern = Pattern((dataclasses.replace(block, mlp=mixture),), prefix=(block,), suffix=(block,))
    agree(MIXED, layers=6, block=pattern)


def layer_flops(module: hlo.Module) -> float:
    """Of the products in layers, which a device executes in one step: all but the head's."""
    total = 0.0
    for name, times in module.executions.items():
        fused = [
            within for one in module.computations[name] if one.op == "fusion" for within in one.called("calls")
        ]
        total += times * sum(map(functools.partial(_flops, module), [name, *fused]))
    return total


def _flops(module: hlo.Module, name: str) -> float:
    total, types = 0.0, {one.name: one.type for one in module.computations[name]}
    for one in module.computations[name]:
        if one.op == "dot" and not re.search(r"\bhead\b", one.scope):
            ((_, result),) = hlo.arrays(one.type)
            ((_, left),) = hlo.arrays(types[one.operands[0]])
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)[1]
            total += 2.0 * prod(result) * prod(left[int(dim)] for dim in contracted.split(","))
    return total


@pytest.mark.parametrize(
    "mesh", [pytest.param(AT_NIGHT, marks=pytest.mark.nightly), "pipeline 4 twice around, fsdp 2"]
)
def test_the_bubble_of_the_compiled_step(mesh):
    """Products that a device executes beyond its eighth of one device's: (S - 1) / (R M + S - 1) of them."""
    shape, _, flow, _ = MESHES[mesh]
    executed, useful = layer_flops(train(MESHES[mesh])[3]), layer_flops(train(ONE)[3]) / 8
    idle = shape.pipeline - 1
    assert 1 - useful / executed == pytest.approx(idle / (flow.rounds * flow.micro_batches + idle), rel=0.05)


def test_a_checkpoint_of_a_pipeline_goes_on_elsewhere(tmp_path):
    state, _, _, _ = train(MESHES["pipeline 4 twice around, fsdp 2"])
    stages = {name for name, leaf in flatten(state.model).items() if "pipeline" in leaf.sharding.spec}
    assert stages == {name for name in flatten(state.model) if name.startswith("blocks.period.")}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(STEPS, state, {})
    for there in (ONE, MESHES["data 2, fsdp 2, pipeline 2"]):
        assert fingerprint(load(tmp_path, make(there))) == fingerprint(state)


def test_held_out_text_is_scored_alike():
    scores = []
    for where in (ONE, MESHES["pipeline 4 twice around, fsdp 2"]):
        setup = make(where)
        state = initial_state(setup)
        batches = [feed.global_batch(ROWS, setup.call.layout, 0)]
        scores.append(make_evaluate(setup.objective, setup.call)(state.model, state.frozen, batches)["loss"])
    assert scores[1] == pytest.approx(scores[0], rel=2e-6)


@pytest.mark.parametrize(
    ("where", "model", "message"),
    [
        ((Mesh(pipeline=4), 1, Pipeline(4), "none"), {"layers": 6}, "6 repeats does not divide into 4 pieces"),
        ((Mesh(pipeline=4), 1, Pipeline(6), "none"), {}, "8 rows .* where.pipeline.micro_batches=6"),
        ((Mesh(pipeline=8), 4, Pipeline(), "none"), {}, "train.batch=16 .* 4 micro-batches on 8 shards of rows"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(where, model, message):
    with pytest.raises(UsageError, match=message):
        make(where, **model)


def test_rows_that_share_a_loss_are_refused():
    mixture = Moe(experts=4, top_k=2, width=24, balance=Balance(over="batch"))
    block = dataclasses.replace(experiment().model.block, mlp=mixture)
    with pytest.raises(UsageError, match=r"where.mesh.pipeline=2: Prediction couples all rows"):
        make((Mesh(pipeline=2), 1, Pipeline(), "none"), block=block)


def test_taps_are_refused_by_name():
    setup = make(MESHES["data 2, fsdp 2, pipeline 2"])
    setup = dataclasses.replace(setup, call=dataclasses.replace(setup.call, taps=("residual",)))
    batch = feed.global_batch(ROWS, setup.call.layout, 0)
    with pytest.raises(UsageError, match=r"where.mesh.pipeline=2: .*taps residual.*where.every.telemetry=0"):
        compiled(setup).lower(setup.abstract, batch)
    where = dataclasses.replace(setup.experiment.where, every=Every(telemetry=5))
    with pytest.raises(UsageError, match=r"where.every.telemetry=5: .*where.mesh.pipeline=2"):
        make_setup(dataclasses.replace(setup.experiment, where=where), jax.devices()[:8])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_stages_share_the_repeats_of_stacks_and_nothing_else(kind):
    """What stands in front of a leaf's axes is the stacked dimension; closed forms count the same leaves."""
    model = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    named = zip(flatten(model).items(), jax.tree.leaves(logical_axes(model)), strict=True)
    stacked = {name: leaf.size for (name, leaf), one in named if leaf.ndim == len(one.axes) + 1}
    assert stacked.keys() == {name for name in flatten(model) if ".period." in name}
    assert sum(stacked.values()) == staged(kind)


def test_memory_in_closed_form():
    """Four stages hold a quarter of the layers each, and the rest whole; they keep idle ticks too."""
    where = MESHES["pipeline 4, tensor 2"]
    tiny = make(where).experiment
    whole, layers = parameters(tiny.model)["total"], staged(tiny.model)
    held, rows = bytes_per_device(tiny, 8), dataclasses.replace(tiny.where, mesh=Mesh(data=4, tensor=2))
    assert held["parameters"] == 4 * (whole - layers + layers // 4) // 2
    other = bytes_per_device(dataclasses.replace(tiny, where=rows), 8)
    stream = 2 * 16 * 32 * tiny.model.embed * 4 // 2
    assert held["activations"] - stream == pytest.approx(other["activations"] * 11 / 8, rel=1e-3)
    assert held["logits"] == other["logits"]
