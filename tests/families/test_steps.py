"""Every family trains on eight devices as on one, and its step lowers for TPUs and GPUs."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxlm.config import Bytes, Mesh, SpanCorruption, Stream, Train, Where
from jaxlm.data import rows as row_data
from jaxlm.layers.names import flatten
from jaxlm.train import feed
from jaxlm.train.setup import make_setup
from tests.families.tiny import ENCODERS, PAIRS, TOLD, kind
from tests.tiny import close, random_model
from tests.train.test_lowering import exported
from tests.train.test_meshes import compiled, documents
from tests.train.tiny import experiment

ONE, SPREAD = (Mesh(), 1), (Mesh(fsdp=2, tensor=2), 8)
"""Mesh and devices: data 2, fsdp 2 and tensor 2 are the eight."""
BATCH, LENGTH = 8, 16
KERNELS = {"tpu_custom_call": "tpu", "__cudnn$fmhaSoftmaxBackward(": "cuda"}
BIASED = ("bloom", "t5", "mt5")
WITHOUT = {"tpu": (*BIASED, "rwkv", "deberta-v2"), "cuda": (*BIASED, "gemma2", "rwkv", *ENCODERS)}
"""Kernels of attention take no bias of the scores and no vectors of distances, and cuDNN's no soft cap and nothing
but causal attention; RWKV has none.
"""
ORDINARY = ("gpt_bigcode", "bloom", "bart")
"""With parts that no other test spreads over devices: a lone key and value head, ALiBi, two halves' tables."""


def some(ordinary):
    return [pytest.param(name, marks=() if name in ordinary else pytest.mark.nightly) for name in TOLD]


def model(name):
    """The family's tiny model for the tokens of the tests' documents."""
    return dataclasses.replace(kind(name), vocab=264)


def tree(name, **changes):
    """The tiny experiment with that model."""
    sides = {"objective": SpanCorruption(sentinels=4), "tokenizer": Bytes(sentinels=4)} if name in PAIRS else {}
    return dataclasses.replace(experiment(), model=model(name), **sides, **changes)


def first_step(name, mesh, devices):
    """(Loss and gradient norm, gradients by name) of the first step, every parameter random."""
    told = tree(name, train=Train(batch=BATCH, length=LENGTH), where=Where(mesh=mesh))
    setup = make_setup(told, jax.devices()[:devices])
    # Before the first step all but the parameters is zero. Copies: the state is donated.
    state = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), setup.abstract)
    drawn = random_model(told.model, std=0.1)
    drawn = jax.tree.map(lambda x, to: jax.device_put(np.array(x), to.sharding), drawn, setup.abstract.model)
    state = dataclasses.replace(state, model=drawn)
    rows = row_data.training(documents(), Stream(), batch=BATCH, length=LENGTH, seed=0)
    step = compiled(setup, observe=lambda _, gradients, __: flatten(gradients))
    new, metrics = step(state, feed.global_batch(rows, setup.call.layout, 0))
    metrics = jax.device_get(metrics)
    return [metrics.pop("loss"), metrics.pop("gradient_norm")], {name: metrics[name] for name in flatten(new.model)}


@pytest.mark.parametrize("name", some(ORDINARY))
def test_meshes_agree(name):
    values, gradients = first_step(name, *ONE)
    others, spread = first_step(name, *SPREAD)
    np.testing.assert_allclose(others, values, rtol=2e-6)
    close(spread, gradients)
    scale = next(name for name in gradients if name.endswith("norm.scale"))
    wrong = gradients | {scale: 1.0001 * gradients[scale]}
    with pytest.raises(AssertionError, match=re.escape(scale)):
        close(wrong, gradients)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", some(("gemma2",)))
def test_the_step_lowers(name, platform, monkeypatch):
    """For the platform, with the mesh of this machine's devices taken for its own."""
    train, where = Train(batch=BATCH, length=256), Where(mesh=SPREAD[0])
    text = exported(tree(name, train=train, where=where, precision="bfloat16"), platform, monkeypatch)
    assert "reduce_scatter" in text
    assert "all_gather" in text
    for kernel, where in KERNELS.items():
        assert (kernel in text) == (platform == where and name not in WITHOUT[where])
