"""Whole models in few bits: which weights, how close, and the cache of keys and values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Dynamic, Fp8, Integers, Kept, Nf4, NoQuantization, Rounded, Rule
from jaxlm.config.errors import UsageError
from jaxlm.layers import cache as caches
from jaxlm.layers.axes import shardings
from jaxlm.layers.weights import map_weights
from jaxlm.models import build
from jaxlm.quantize import grid
from jaxlm.quantize.build import quantized
from jaxlm.quantize.weight import Quantized
from tests.tiny import CALL, GLOBAL, KINDS, SIZES, layout, random_ids, random_model, tokens

INPUTS = tokens(random_ids(4, 6))
SMALL = config.Decoder(**SIZES, layers=2, block=GLOBAL)
logits = jax.jit(lambda m: m.logits(m(INPUTS, CALL).hidden, CALL))
rounded = jax.jit(quantized, static_argnames="quantization")


def forms(model):
    found = {}
    map_weights(lambda name, weight: found.setdefault(name, weight), model)
    return {name: weight.format for name, weight in found.items() if isinstance(weight, Quantized)}


@pytest.mark.parametrize("name", ["decoder", "rwkv4"])
def test_the_blocks_and_nothing_else(name):
    model = random_model(KINDS[name])
    small = rounded(model, Rounded())
    wanted, got = logits(model), logits(small)
    error = np.sqrt(np.mean(np.square(got - wanted))) / np.std(wanted)
    assert 1e-5 < error < 0.05
    names = []
    map_weights(lambda name, weight: (names.append(name), weight)[1], model)
    assert set(forms(small)) == {name for name in names if name.startswith("blocks.")} < set(names)
    assert quantized(model, NoQuantization()) is model


def test_the_first_rule_that_fits_holds():
    rules = (
        Rule(r"attention\.(key|value)$", Kept()),
        Rule(r"prefix\.0\.mlp", Integers(2, symmetric=False, group=8)),
        Rule(format=Nf4(8)),
        Rule("^embedding$", Integers()),
    )
    found = forms(rounded(random_model(KINDS["decoder"]), Rounded(rules)))
    assert "blocks.period.0.attention.key" not in found
    assert found["blocks.prefix.0.mlp.down"] == rules[1].format
    assert found["blocks.suffix.0.mlp.down"] == found["blocks.period.0.attention.query"] == Nf4(8)
    assert found["embedding"] == Integers()


@pytest.mark.parametrize(
    "format",
    [
        Integers(4, group=8),
        Nf4(8),
        pytest.param(Integers(3, symmetric=False), marks=pytest.mark.nightly),
        pytest.param(Fp8(), marks=pytest.mark.nightly),
    ],
)
def test_abstract_models_and_meshes(format):
    """A run's model is made from its config alone, and has a place on a mesh."""
    quantization = Rounded((Rule(format=format), Rule("^embedding$", Integers())), Dynamic())
    real = rounded(random_model(SMALL), quantization)
    abstract = jax.eval_shape(lambda: quantized(build(SMALL, jax.random.key(0)), quantization))
    assert jax.tree.structure(abstract) == jax.tree.structure(real)
    assert [a.shape for a in jax.tree.leaves(abstract)] == [b.shape for b in jax.tree.leaves(real)]
    mesh = layout(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(real, shardings(real, mesh))
    call = dataclasses.replace(CALL, layout=mesh)
    got = jax.jit(lambda m: m.logits(m(INPUTS, call).hidden, call))(placed)
    wanted = logits(real)
    assert np.abs(got - wanted).max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
    unrolled = dataclasses.replace(CALL, layers="unroll")
    got = jax.jit(lambda m: m.logits(m(INPUTS, unrolled).hidden, unrolled))(real)
    assert np.abs(got - wanted).max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ((Rule("atention", Integers()),), r"rules\.0: 'atention' is found in the name of no weight .* embedding"),
        ((Rule(), Rule("query", Kept())), r"rules\.1: 'query'"),
        ((Rule(format=Integers(4, group=5)),), r"attention\.query: Integers\(group=5\) .* 16 inputs: use 4 or 8"),
        ((Rule(format=Integers(12)),), "attention.query: .*2 to 8 bits"),
    ],
)
def test_rules_that_cannot_be(rules, told):
    with pytest.raises(UsageError, match=told):
        jax.eval_shape(lambda: quantized(build(SMALL, jax.random.key(0)), Rounded(rules)))


def test_a_cache_where_there_are_keys():
    with pytest.raises(UsageError, match="keeps no keys and values"):
        quantized(random_model(KINDS["rwkv4"]), Rounded(cache="int8"))


def by_hand(x):
    """Each head of each token on the grid, as a group of its own."""
    flat = jnp.asarray(np.moveaxis(x, -1, 0).reshape(x.shape[-1], -1))
    return np.moveaxis(np.asarray(grid.rounded(flat, Integers())).reshape(x.shape[-1], *x.shape[:-1]), 0, -1)


def test_keys_and_values_in_eight_bits():
    """Rounded when they come, and not again; rows change places with their scales; padding is written over."""
    rng = np.random.default_rng(0)
    cache, dense = caches.Int8.empty(2, 8, 3, 4), caches.Dense.empty(2, 8, 3, 4, "float32")
    append = jax.jit(lambda cache, *new: cache.append(*new))
    lengths = np.zeros(2, np.int32)
    for new in (3, 1, 2):
        keys, values = (rng.standard_normal((2, new, 3, 4)).astype(np.float32) for _ in range(2))
        keys[0, 0, 0] = 0.0
        segments = np.ones((2, new), np.int32)
        segments[1, -1] = new == 1
        positions = lengths[:, None] + np.arange(new, dtype=np.int32)[None]
        more = [jnp.asarray(one) for one in (positions, segments, lengths)]
        cache = append(cache, jnp.asarray(keys), jnp.asarray(values), *more)
        dense = append(dense, jnp.asarray(by_hand(keys)), jnp.asarray(by_hand(values)), *more)
        lengths = lengths + segments.sum(1, dtype=np.int32)
    for got, wanted in zip(jax.tree.leaves(cache.view()), jax.tree.leaves(dense.view()), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    whole = caches.Cache((caches.Block(cache),), jnp.asarray(lengths)).reorder(jnp.array([1, 1, 0]))
    np.testing.assert_array_equal(whole.layers[0].attention.view().keys[2], cache.view().keys[0])
    assert cache.keys.dtype == cache.values.dtype == jnp.int8


def in_steps(model):
    """Four tokens at once, then one by one."""
    cut = lambda start, stop: jax.tree.map(lambda x: x[:, start:stop], INPUTS)  # noqa: E731
    step = jax.jit(lambda model, tokens, cache: model(tokens, CALL, cache=cache))
    output = step(model, cut(0, 4), model.empty_cache(4, 6, CALL))
    hidden = [output.hidden]
    for place in (4, 5):
        output = step(model, cut(place, place + 1), output.cache)
        hidden.append(output.hidden)
    return model.logits(jnp.concatenate(hidden, axis=1), CALL), output.cache


def test_decoding_with_it():
    model = random_model(SMALL)
    small = quantized(model, Rounded((Rule("^embedding$", Kept()),), cache="int8"))
    wanted, (plain, _), (found, cache) = logits(model), in_steps(model), in_steps(small)
    assert isinstance(cache.layers[0].attention, caches.Int8)
    error = np.sqrt(np.mean(np.square(found - wanted))) / np.std(wanted)
    assert 1e-5 < error < 0.02
    assert np.abs(plain - wanted).max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
