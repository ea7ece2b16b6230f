"""What calibration sees is what weights are applied to, and nothing of padding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Integers, Rounded, Rule, Static
from jaxlm.layers.names import flatten
from jaxlm.layers.weights import map_weights
from jaxlm.quantize.calibrate import each_layer
from jaxlm.quantize.moments import Gram, Sizes, squared_error
from jaxlm.quantize.ranges import Spread, reach, step
from jaxlm.quantize.readers import weights_of
from jaxlm.quantize.rounding import round_layers, to_nearest
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

PADDED = np.ones((4, 30), int)
PADDED[1, 12:], PADDED[3, 5:] = 0, 0
PADDED[2, 9:] = 2


def rows(seed: int = 0):
    """Four rows, two documents in one, padding at the end of two."""
    return tokens(random_ids(4, 30, seed), PADDED)


@dataclasses.dataclass
class Watched:
    """A weight that notes what it is applied to."""

    base: Any
    seen: list
    bias = property(lambda self: self.base.bias)
    axes = property(lambda self: self.base.axes)
    inputs = property(lambda self: self.base.inputs)

    def dot(self, x, spec, call, **more):
        self.seen.append(np.asarray(x))
        return self.base.dot(x, spec, call, **more)

    def dense(self):
        return self.base.dense()

    def leaf_axes(self):
        return self.base.leaf_axes()


def watched(model, inputs):
    """By layer and name, the inputs of every weight in one whole forward."""
    seen: dict = {}
    stack = model.blocks.unstacked()

    def watch(name, weight):
        seen[name] = []
        return Watched(weight, seen[name])

    layers = tuple(map_weights(watch, layer, f"{n}") for n, layer in enumerate(stack.prefix))
    model.replace(blocks=stack.replace(prefix=layers))(inputs, dataclasses.replace(CALL, layers="unroll"))
    return seen


NIGHTLY = ("decoder", "wired", "rwkv4", "rwkv6", "rwkv7")
KIND = ["encoder", *(pytest.param(one, marks=pytest.mark.nightly) for one in NIGHTLY)]


@pytest.mark.parametrize("kind", KIND)
def test_taps_are_what_weights_are_applied_to(kind):
    model, inputs = random_model(KINDS[kind]), rows()
    wanted, real, found = watched(model, inputs), PADDED > 0, set()

    def treat(place):
        for tap, names in place.taps().items():
            gram, sizes = place.measured(tap, Gram), place.measured(tap, Sizes)
            for name in names:
                (x,) = wanted[f"{place.number}.{name}"]
                x = x.reshape(*PADDED.shape, -1)[real]
                np.testing.assert_allclose(gram.mean, x.T @ x / len(x), rtol=2e-4, atol=1e-5)
                np.testing.assert_allclose(sizes.largest, np.abs(x).max(axis=0), rtol=2e-5, atol=1e-6)
                np.testing.assert_allclose(sizes.mean, np.abs(x).mean(axis=0), rtol=2e-5, atol=1e-6)
                assert gram.tokens == sizes.tokens == real.sum()
                found.add(f"{place.number}.{name}")
        return place.layer

    again = each_layer(model, inputs, CALL, treat, batch=3)
    # Of RWKV the pairs of narrow matrices have no taps: what they make is added to a base.
    assert found == {name for name in wanted if not name.endswith(("narrow", "wide"))}
    before, after = flatten(model), flatten(again)
    assert before.keys() == after.keys()
    assert all((np.asarray(before[name]) == np.asarray(after[name])).all() for name in before)


def test_the_next_layer_sees_what_a_replaced_one_makes():
    model, inputs = random_model(KINDS["decoder"]), rows()

    def halved(place):
        if place.number:
            return place.layer
        return map_weights(lambda name, w: w.replace(kernel=w.kernel / 2), place.layer)

    def noted(place):
        seen.append(float(jnp.sum(place.measured("mlp.down", Sizes).mean)))
        return halved(place)

    seen: list = []
    changed = each_layer(model, inputs, CALL, noted)
    first = watched(changed, inputs)["1.mlp.down"][0][PADDED > 0]
    np.testing.assert_allclose(seen[1], np.abs(first).mean(axis=0).sum(), rtol=1e-4)
    unchanged = watched(model, inputs)["1.mlp.down"][0][PADDED > 0]
    assert abs(np.abs(unchanged).mean(axis=0).sum() / seen[1] - 1) > 0.01


@pytest.mark.parametrize("statistic", [Gram, Sizes])
def test_padding_and_batches_change_nothing(statistic):
    rng = np.random.default_rng(0)
    x, real = rng.standard_normal((30, 6)), rng.random(30) < 0.6
    dirty = jnp.asarray(np.where(real[:, None], x, np.nan), jnp.float32)
    whole = statistic.of(jnp.asarray(x[real], jnp.float32), jnp.ones(real.sum(), bool))
    parts = [statistic.of(dirty[i:j], jnp.asarray(real[i:j])) for i, j in ((0, 3), (3, 4), (4, 20), (20, 30))]
    joined = parts[0].joined(parts[1]).joined(parts[2].joined(parts[3]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), joined, whole)


def test_the_error_of_a_product_is_its_gram_s():
    rng = np.random.default_rng(1)
    x, d = rng.standard_normal((50, 8)), rng.standard_normal((8, 5))
    gram = Gram.of(jnp.asarray(x, jnp.float32), jnp.ones(50, bool))
    got = squared_error(gram.mean, jnp.asarray(d, jnp.float32))
    np.testing.assert_allclose(got, np.square(x @ d).sum() / 50, rtol=1e-5)


def test_ranges():
    """Of heavy-tailed numbers: the largest, a share of all, and the range that loses least."""
    rng = np.random.default_rng(2)
    x = rng.standard_t(3, (4000, 16)).astype(np.float32)
    real = jnp.ones(len(x), bool)
    sizes = Sizes.of(jnp.asarray(x), real)
    spread = [
        Spread.of(jnp.asarray(p), real[: len(p)], jnp.max(sizes.largest), jnp.float32(7)) for p in (x[:9], x[9:])
    ]
    spread = spread[0].joined(spread[1])
    largest = np.abs(x).max()
    assert reach(sizes, None, "absmax") == largest
    below = np.quantile(np.abs(x), 0.9999, method="inverted_cdf")
    np.testing.assert_allclose(reach(sizes, spread, "percentile"), below, atol=largest / 1000)

    def lost(limit):
        return np.square(np.clip(np.round(x / limit * 7), -8, 7) * limit / 7 - x).sum()

    best = reach(sizes, spread, "mse")
    assert lost(best) <= min(lost(largest * k / 64) for k in range(1, 65)) * (1 + 1e-4)
    assert best < below < largest
    assert step(jnp.zeros(()), 8) == 1.0


def test_too_few_tokens():
    short = tokens(random_ids(1, 20))
    with pytest.raises(UsageError, match="20 tokens beside padding are too few"):
        each_layer(random_model(KINDS["decoder"]), short, CALL, lambda place: place.layer)


def test_models_that_are_refused():
    with pytest.raises(UsageError, match="encoder_decoder has two"):
        each_layer(random_model(KINDS["encoder_decoder"]), rows(), CALL, lambda place: place.layer)
    shared = dataclasses.replace(KINDS["encoder"], block=config.Shared((KINDS["encoder"].block,)))
    with pytest.raises(UsageError, match="Shared"):
        each_layer(random_model(shared), rows(), CALL, lambda place: place.layer)
    nothing = Rounded((Rule("nowhere"),))
    with pytest.raises(UsageError, match="is found in the name of no weight"):
        round_layers(random_model(KINDS["decoder"]), rows(), CALL, nothing, to_nearest)


def test_static_steps_are_those_of_what_arrives():
    model, inputs = random_model(KINDS["decoder"]), rows()
    how = Rounded((Rule(format=Integers(8)),), Static(8))
    rounded, errors = round_layers(model, inputs, CALL, how, to_nearest, say=lambda line: None)
    assert len(errors) == 4 * 7
    seen = watched(rounded, inputs)
    for number, layer in enumerate(rounded.blocks.layers()):
        for name, own in weights_of(layer).items():
            (x,) = seen[f"{number}.{name}"]
            largest = np.abs(x.reshape(*PADDED.shape, -1)[PADDED > 0]).max()
            np.testing.assert_allclose(own.activation * 127, largest, rtol=1e-4)
    calibrated = rounded(inputs, CALL).hidden
    assert np.isfinite(calibrated).all()
