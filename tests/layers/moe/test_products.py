"""Ragged products against a loop over experts in float64, on every path, and lowered for accelerators."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Capacity, Dropless, Moe
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.moe import megablox, products
from jaxlm.layers.moe.module import initial_moe
from jaxlm.layers.moe.products import ragged
from jaxlm.parallel.layout import Layout
from tests.tiny import CALL

SLOTS, INPUTS, OUTPUTS = 256, 24, 40
SIZES = [70, 0, 130, 1, 0]
"""Two experts have no slot, and 55 slots no expert."""


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)


def by_hand(x, y):
    edges = np.cumsum([0, *SIZES])
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.stack([x[a:b].T @ y[a:b] for a, b in itertools.pairwise(edges)])


@pytest.mark.parametrize("way", ["xla", "kernel"])
def test_sums_over_slots(way):
    """The TPU's kernel is run by Pallas' interpreter; slots of no expert hold numbers that must not be seen."""
    x, y, sizes = drawn(SLOTS, INPUTS), drawn(SLOTS, OUTPUTS), jnp.asarray(SIZES, jnp.int32)
    with jax.numpy_rank_promotion("allow"):
        kernel = functools.partial(megablox.over_slots, interpret=True)
        got = (products.over_slots if way == "xla" else kernel)(x, y, sizes)
    np.testing.assert_allclose(got, by_hand(x, y), atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("way", ["xla", "kernel"])
def test_each_slot_meets_its_own_kernel(way, transposed, monkeypatch):
    """In several pieces of features, which do not divide."""
    monkeypatch.setattr(megablox, "FEATURES", 16)
    x, sizes = drawn(SLOTS, INPUTS), jnp.asarray(SIZES, jnp.int32)
    kernels = drawn(5, *((OUTPUTS, INPUTS) if transposed else (INPUTS, OUTPUTS)))
    x = x.at[sum(SIZES) :].set(jnp.inf)
    with jax.numpy_rank_promotion("allow"):
        kernel = functools.partial(megablox.product, interpret=True)
        got = (products.over_inputs if way == "xla" else kernel)(x, kernels, sizes, transposed=transposed)
    experts = np.repeat(np.arange(5), SIZES)
    own = np.asarray(kernels, np.float64)[experts]
    wanted = np.einsum("si,soi->so" if transposed else "si,sio->so", np.asarray(x[: len(experts)], np.float64), own)
    np.testing.assert_allclose(got[: len(experts)], wanted, atol=1e-4)


def test_slots_of_no_expert_are_zero_whatever_they_hold():
    x, kernels, sizes = drawn(SLOTS, INPUTS), drawn(5, INPUTS, OUTPUTS), jnp.asarray(SIZES, jnp.int32)
    x = x.at[sum(SIZES) :].set(jnp.inf)
    y, backward = jax.vjp(lambda x, w: ragged(x, w, sizes, CALL.layout), x, kernels)
    experts = np.repeat(np.arange(5), SIZES)
    wanted = np.einsum("si,sio->so", np.asarray(x[: len(experts)]), np.asarray(kernels)[experts])
    np.testing.assert_allclose(y[: len(experts)], wanted, atol=1e-4)
    assert (np.asarray(y[len(experts) :]) == 0).all()
    dx, _ = backward(jnp.ones_like(y))
    np.testing.assert_allclose(dx[: len(experts)], np.asarray(kernels)[experts].sum(2), atol=1e-4)
    assert (np.asarray(dx[len(experts) :]) == 0).all()


@pytest.mark.parametrize("dispatch", [Dropless(), Capacity()], ids=["dropless", "capacity"])
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(platform, dispatch, monkeypatch):
    """Forward and backward in bfloat16; for TPUs ragged products are Pallas calls."""
    monkeypatch.setattr(Layout, "platform", platform)
    kind, call = Moe(8, 2, 256, dispatch=dispatch), Call(CALL.layout, config.PRECISIONS["bfloat16"])
    model = jax.eval_shape(lambda: initial_moe(kind, 128, Initial(jax.random.key(0)), 1.0))
    ids = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    x = jax.ShapeDtypeStruct((4, 64, 128), jnp.bfloat16)

    def loss(model, x, tokens):
        y, report = model(x, tokens, call)
        return jnp.sum(y.astype(jnp.float32)) + sum(report.terms.values())

    with jax.numpy_rank_promotion("allow"):
        step = jax.jit(jax.grad(loss, (0, 1)))
        text = jax.export.export(step, platforms=[platform])(model, x, Tokens(ids, ids, ids)).mlir_module()
    ragged_form = dispatch == Dropless()
    assert ("chlo.ragged_dot" in text) == (ragged_form and platform != "tpu")
    assert ("tpu_custom_call" in text) == (ragged_form and platform == "tpu")
