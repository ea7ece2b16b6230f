"""A pipeline trains as one device does: stages, rounds, and products with the other axes."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm.config import Balance, Block, Dropless, Mesh, Moe, Pattern, Pipeline, Stream
from jaxlm.config.errors import UsageError
from jaxlm.data import rows as row_data
from jaxlm.layers.names import flatten
from jaxlm.parallel import pipeline
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import fingerprint
from jaxlm.train.setup import initial_state, make_setup
from tests.train.test_meshes import compiled, distances, documents, load
from tests.train.tiny import experiment

STEPS = 3
ROWS = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
MESHES = {
    "1": (Mesh(), Pipeline(), 2),
    "data 2, fsdp 2, pipeline 2": (Mesh(fsdp=2, pipeline=2), Pipeline(2), 2),
    "pipeline 4, tensor 2": (Mesh(pipeline=4, tensor=2), Pipeline(8), 1),
    "2 rounds of pipeline 2, context 2, tensor 2": (Mesh(pipeline=2, context=2, tensor=2), Pipeline(4, 2), 2),
    "2 rounds of pipeline 4, fsdp 2": (Mesh(pipeline=4, fsdp=2), Pipeline(4, 2), 2),
}
"""Mesh, pipeline, micro-batches."""


def make(mesh: str, model=None, remat="none"):
    shape, flow, micro = MESHES[mesh]
    tiny = experiment()
    where = dataclasses.replace(tiny.where, mesh=shape, pipeline=flow, micro_batches=micro, remat=remat)
    tiny = dataclasses.replace(
        tiny,
        model=model or dataclasses.replace(tiny.model, layers=8),
        train=dataclasses.replace(tiny.train, batch=16),
        where=where,
    )
    return make_setup(tiny, jax.devices()[: 1 if mesh == "1" else 8])


def train(mesh: str, model=None, remat="none"):
    """(Final state, metrics of each step, gradients of the first by name)."""
    setup = make(mesh, model, remat)
    state = initial_state(setup)
    step = compiled(setup, micro_batches=MESHES[mesh][2], observe=lambda _, gradients, __: flatten(gradients))
    found, first = [], None
    for index in range(STEPS):
        state, metrics = step(state, feed.global_batch(ROWS, setup.call.layout, index))
        metrics = jax.device_get(metrics)
        first = first or {name: metrics[name] for name in flatten(state.model)}
        found.append({name: float(metrics[name]) for name in ("loss", *setup.objective.coefficients)})
    return state, found, first


@pytest.fixture(scope="module")
def one():
    return train("1")


def agree(found, others, expected, gradients):
    for name in expected[0]:
        np.testing.assert_allclose([m[name] for m in found], [m[name] for m in expected], rtol=2e-6, err_msg=name)
    far = {name: far for name, far in distances(gradients, others).items() if far > 1}
    assert not far


@pytest.mark.parametrize("mesh", [mesh for mesh in MESHES if mesh != "1"])
def test_pipelines_agree(one, mesh):
    _, expected, gradients = one
    _, found, others = train(mesh, remat="full" if "tensor" in mesh else "none")
    agree(found, others, expected, gradients)
