"""Eight-bit weights: at most half a step off, one step an output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers.names import flatten
from jaxlm.layers.projection import Dense, project
from jaxlm.quantize.int8 import Int8, int8, quantized
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

RNG = np.random.default_rng(0)


def dense(shape, axes, inputs, stacked=0):
    kernel = RNG.standard_normal(shape) * np.exp(RNG.standard_normal(shape[stacked + inputs :]))
    return Dense(jnp.asarray(kernel, jnp.float32), None, axes, inputs)


WEIGHTS = [
    (dense((8, 4, 5), ("embed", "heads", "head"), 1), 0),
    (dense((4, 5, 8), ("heads", "head", "embed"), 2), 0),
    (dense((3, 4, 5, 8), ("heads", "head", "embed"), 2, stacked=1), 1),
]


@pytest.mark.parametrize(("weight", "stacked"), WEIGHTS)
def test_half_a_step_an_output(weight, stacked):
    small = quantized(weight)
    kernel = np.asarray(weight.kernel, np.float64)
    contracted = tuple(range(stacked, stacked + weight.inputs))
    step = np.abs(kernel).max(axis=contracted, keepdims=True) / 127
    assert (np.abs(np.asarray(small.dense()) - kernel) <= step * (0.5 + 1e-5)).all()
    assert small.values.dtype == jnp.int8
    assert (np.abs(np.asarray(small.values, int)).max(axis=contracted) == 127).all(), "every output uses all levels"
    assert small.scale.shape == tuple(np.delete(kernel.shape, contracted))


def test_the_product_is_with_the_rounded_matrix():
    weight, x = WEIGHTS[1][0], jnp.asarray(RNG.standard_normal((2, 3, 4, 5)), jnp.float32)
    small = quantized(weight)
    got = project(small, x, "rphd,hde->rpe", CALL)
    np.testing.assert_allclose(got, np.einsum("rphd,hde->rpe", x, small.dense()), rtol=1e-5, atol=1e-5)
    assert np.abs(got - np.einsum("rphd,hde->rpe", x, weight.kernel)).max() > 1e-3


def test_an_output_of_zeros_stays_zero():
    small = quantized(Dense(jnp.zeros((4, 3)), None, ("embed", "mlp")))
    np.testing.assert_array_equal(small.dense(), np.zeros((4, 3)))


@pytest.mark.parametrize("name", ["decoder", "rwkv4"])
def test_a_whole_model(name):
    model, inputs = random_model(KINDS[name]), tokens(random_ids(2, 6))
    small = int8(model)
    run = jax.jit(lambda m: m.logits(m(inputs, CALL).hidden, CALL))
    wanted, got = run(model), run(small)
    error = np.sqrt(np.mean(np.square(got - wanted))) / np.std(wanted)
    assert 1e-5 < error < 0.05
    kernels = {key: leaf.dtype for key, leaf in flatten(small).items() if key.endswith((".kernel", ".values"))}
    assert all((dtype == jnp.int8) == key.startswith("blocks.") for key, dtype in kernels.items())


def test_biases_are_kept():
    weight = Dense(jnp.ones((4, 3)), jnp.arange(3.0), ("embed", "mlp"))
    got = project(quantized(weight), jnp.ones((1, 1, 4)), "rpe,em->rpm", CALL)
    np.testing.assert_allclose(got, [[[4, 5, 6]]], rtol=1e-6)
    assert isinstance(quantized(weight), Int8)
