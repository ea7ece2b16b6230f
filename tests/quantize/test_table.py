"""Token vectors in few bits: looked up and multiplied, they are the rounded table's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.axes import shardings
from jaxlm.layers.projection import Dense, look_up, project
from jaxlm.quantize import grid
from jaxlm.quantize.build import quantized
from jaxlm.quantize.weight import Quantized
from tests.tiny import CALL, KINDS, layout, packed_batch, random_model

FORMATS = (
    config.Integers(),
    config.Integers(bits=4, symmetric=False, group=8),
    config.Integers(bits=3),
    config.Integers(group=-1),
    config.Nf4(group=8),
    config.Nf4(group=8, double=False),
    config.Fp8(),
)
ALL = config.Rounded(rules=(config.Rule("."),))


@pytest.fixture(scope="module")
def table():
    """Rows of unlike sizes, which one scale for all of them would lose."""
    rows = jax.random.normal(jax.random.key(0), (40, 24)) * 10.0 ** -jnp.arange(0, 4, 0.1)[:, None]
    return Dense(rows, None, ("vocab", "embed"))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rows_and_scores_are_the_rounded_table_s(table, format):
    small, ids = Quantized.of(table, format), jnp.array([[1, 39, 0], [7, 7, 22]])
    rounded = grid.rounded(table.kernel.T, format).T
    np.testing.assert_array_equal(small.dense(), rounded)
    np.testing.assert_array_equal(look_up(small, ids, CALL), rounded[ids])
    x = jax.random.normal(jax.random.key(1), (2, 3, 24))
    np.testing.assert_allclose(project(small, x, "rpe,ve->rpv", CALL), x @ rounded.T, atol=2e-5)
    assert small.axes == table.axes


def test_each_token_has_a_scale(table):
    """A control: by the features' scales, small rows would be lost."""
    error = np.abs(Quantized.of(table, config.Integers()).dense() - table.kernel).max(1)
    assert (error <= np.abs(table.kernel).max(1) / 127 / 2 * 1.001).all()
    other = np.abs(grid.rounded(table.kernel, config.Integers()) - table.kernel).max(1)
    assert (other > np.abs(table.kernel).max(1) / 127).any()


@pytest.mark.parametrize("mesh", [{"fsdp": 2, "tensor": 2}, {"tensor": 2}], ids=str)
@pytest.mark.parametrize("activations", [config.NoActivations(), config.Dynamic()], ids=["exact", "dynamic"])
def test_a_whole_model_on_a_mesh(mesh, activations):
    model = quantized(random_model(KINDS["decoder"]), dataclasses.replace(ALL, activations=activations))
    assert isinstance(model.embedding, Quantized)
    inputs = packed_batch(KINDS["decoder"]).inputs
    score = lambda model, call: model.logits(model(inputs, call).hidden, call)  # noqa: E731
    expected = jax.jit(score, static_argnums=1)(model, CALL)
    call = dataclasses.replace(CALL, layout=layout(**mesh))
    spread = jax.device_put(model, shardings(model, call.layout))
    np.testing.assert_allclose(jax.jit(score, static_argnums=1)(spread, call), expected, atol=2e-5)
