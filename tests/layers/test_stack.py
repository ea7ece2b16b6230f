"""A stack of toy layers: order, numbering, taps and randomness do not depend on how layers are grouped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import random
from jaxlm.layers.initial import Initial
from jaxlm.layers.stack import initial_stack
from jaxlm.layers.taps import Report, tapped
from tests.tiny import CALL


@struct.dataclass
class Toy:
    weight: jax.Array
    twice: bool = struct.field(pytree_node=False)

    def __call__(self, x, context, call, cache, key):
        noise = 0 if key is None else jax.vmap(lambda k: jax.random.bits(k, x.shape[1:], "uint8"))(key) / 256
        y = jnp.sin((2 if self.twice else 1) * x * self.weight) + context + noise
        return y, None, Report(tapped(call, residual=y))

    def empty_cache(self, rows, length, dtype):
        raise NotImplementedError


PLAIN, TWICE = (config.Block(config.Attention(heads=heads)) for heads in (1, 2))
PATTERN = config.Pattern((TWICE, PLAIN), prefix=(PLAIN,), suffix=(TWICE, TWICE))
ORDER = [False, True, False, True, False, True, True]
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32)
KEYS = random.row_keys(jax.random.key(1), jnp.arange(2))


def build(kind, init):
    return Toy(jax.random.normal(init.draw("weight")), kind.attention.heads == 2)


STACK = initial_stack(PATTERN, 7, build, Initial(jax.random.key(0)))


def test_layers_run_in_order():
    weights = [jax.random.normal(Initial(jax.random.key(0)).number(index).draw("weight")) for index in range(7)]
    wanted = np.asarray(X, np.float64)
    for weight, twice in zip(weights, ORDER, strict=True):
        wanted = np.sin((2 if twice else 1) * wanted * float(weight)) + 0.5
    assert STACK.depth == 7
    assert [layer.twice for layer in STACK.layers()] == ORDER
    for layers in ("scan", "unroll"):
        call = dataclasses.replace(CALL, layers=layers)
        np.testing.assert_allclose(STACK(X, jnp.float32(0.5), call)[0], wanted, atol=1e-5)


def test_taps_and_randomness_follow_the_layer_and_not_the_grouping():
    call = dataclasses.replace(CALL, taps=("residual", "residual.mean_square"))
    results = [
        STACK(X, jnp.float32(0.5), call, key=KEYS),
        STACK(X, jnp.float32(0.5), dataclasses.replace(call, layers="unroll"), key=KEYS),
        STACK.unstacked()(X, jnp.float32(0.5), call, key=KEYS),
    ]
    for x, _, report in results:
        taps = report.taps
        np.testing.assert_allclose(x, results[0][0], atol=1e-6)
        assert taps["residual"].shape == (7, 2, 3, 4)
        np.testing.assert_allclose(taps["residual"], results[0][2].taps["residual"], atol=1e-6)
        np.testing.assert_array_equal(taps["residual"][-1], x)
        np.testing.assert_allclose(
            taps["residual.mean_square"], np.mean(np.square(taps["residual"]), axis=(1, 2, 3)), rtol=1e-5
        )
    assert np.abs(results[0][0] - STACK(X, jnp.float32(0.5), call)[0]).max() > 0.01


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_a_pattern_that_does_not_fit_is_refused(layers):
    with pytest.raises(UsageError, match=f"layers={layers}: a pattern with prefix 1, period 2 and suffix 2"):
        initial_stack(PATTERN, layers, build, Initial(jax.random.key(0)))


def test_a_pattern_may_have_no_repeat():
    stack = initial_stack(PATTERN, 3, build, Initial(jax.random.key(0)))
    assert [layer.twice for layer in stack.layers()] == [False, True, True]
    np.testing.assert_allclose(stack(X, 0.5, CALL)[0], stack.unstacked()(X, 0.5, CALL)[0], atol=1e-6)
