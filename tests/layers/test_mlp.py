"""Gated and plain MLPs against their equations in float64."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.initial import Initial
from jaxlm.layers.mlp import ACTIVATIONS, initial_mlp
from tests.tiny import CALL

erf = np.vectorize(math.erf)
EXACT = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
GRID = np.linspace(-6, 6, 97)


@pytest.mark.parametrize("name", EXACT)
def test_activations(name):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(GRID, jnp.float32)), EXACT[name](GRID), atol=2e-6)


def test_the_two_gelus_differ():
    assert np.abs(EXACT["gelu"](GRID) - EXACT["gelu_tanh"](GRID)).max() > 1e-4


def test_every_activation_has_an_oracle():
    assert EXACT.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("kind", [config.Gated(12, "gelu", "all"), config.Plain(12, "relu", "all")])
def test_the_equation(kind):
    mlp = initial_mlp(kind, 8, Initial(jax.random.key(0)), 1.0)
    rng = np.random.default_rng(0)
    mlp = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), mlp)
    x = rng.standard_normal((2, 3, 8)).astype(np.float32)

    def affine(weight, x):
        return x @ np.asarray(weight.kernel, np.float64) + np.asarray(weight.bias, np.float64)

    act = EXACT[kind.activation]
    match kind:
        case config.Gated():
            hidden = act(affine(mlp.gate, x)) * affine(mlp.up, x)
        case config.Plain():
            hidden = act(affine(mlp.up, x))
    y, report = mlp(jnp.asarray(x), dataclasses.replace(CALL, taps=("mlp.down",)))
    np.testing.assert_allclose(report.taps["mlp.down"], hidden, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y, affine(mlp.down, hidden), rtol=1e-4, atol=1e-4)


def test_bias_only_where_asked():
    plain = initial_mlp(config.Plain(12), 8, Initial(jax.random.key(0)), 1.0)
    assert all(getattr(plain, f.name).bias is None for f in dataclasses.fields(plain) if f.name != "config")


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    x, functional = torch.tensor(GRID, dtype=torch.float32), torch.nn.functional
    for name, wanted in {
        "silu": functional.silu(x),
        "gelu": functional.gelu(x),
        "gelu_tanh": functional.gelu(x, approximate="tanh"),
    }.items():
        np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(GRID, jnp.float32)), wanted.numpy(), atol=2e-6)
