"""Norms against their equations in float64, and against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.norms import LayerNorm, RMSNorm, ZeroCentered

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 5, 16)) * 3 + 1).astype(np.float32)
SCALE, BIAS = RNG.standard_normal((2, 16)).astype(np.float32)
RMS = RMSNorm(jnp.asarray(SCALE), config.RMSNorm(1e-2))
ZERO = ZeroCentered(jnp.asarray(SCALE - 1), config.ZeroCentered(1e-2))
LAYER = LayerNorm(jnp.asarray(SCALE), jnp.asarray(BIAS), config.LayerNorm(1e-2))


def rms(x):
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-2) * SCALE


def layer(x):
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-2) * SCALE + BIAS


@pytest.mark.parametrize(("norm", "equation"), [(RMS, rms), (ZERO, rms), (LAYER, layer)])
def test_the_equation(norm, equation):
    np.testing.assert_allclose(norm(jnp.asarray(X)), equation(X), atol=1e-5)


@pytest.mark.parametrize(("norm", "equation"), [(RMS, rms), (ZERO, rms), (LAYER, layer)])
def test_bfloat16_goes_through_float32(norm, equation):
    x = jnp.asarray(X * 100, jnp.bfloat16)
    got = norm(x)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), equation(np.asarray(x, np.float32)), rtol=2**-8, atol=1e-6)


def test_a_large_mean_does_not_drown_the_variance():
    shifted = X + 1e3
    np.testing.assert_allclose(LAYER(jnp.asarray(shifted)), layer(shifted), atol=1e-3)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    x, scale, bias = torch.tensor(X), torch.tensor(SCALE), torch.tensor(BIAS)
    wanted = torch.nn.functional.rms_norm(x, (16,), scale, 1e-2)
    np.testing.assert_allclose(RMS(jnp.asarray(X)), wanted.numpy(), atol=1e-5)
    x.requires_grad_()
    wanted = torch.nn.functional.layer_norm(x, (16,), scale, bias, 1e-2)
    np.testing.assert_allclose(LAYER(jnp.asarray(X)), wanted.detach().numpy(), atol=1e-5)
    (wanted**3).sum().backward()
    gradient = jax.grad(lambda x: jnp.sum(LAYER(x) ** 3))(jnp.asarray(X))
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-4, rtol=1e-4)
