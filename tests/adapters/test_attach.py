"""Adapters apart from their model and back, merged into the base that is named, and trained with nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.attach import attached, detached, merged
from jaxlm.adapters.build import adapted, trained
from jaxlm.adapters.lora import LoRA
from jaxlm.config.errors import Failure, UsageError
from jaxlm.layers.names import flatten, partition
from jaxlm.layers.projection import Dense
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.quantize.build import quantized
from jaxlm.train import optimizers
from tests.adapters.test_kinds import ADAPTERS, KEY, KINDS, moved, scores, start
from tests.tiny import packed_batch, random_model

KIND = KINDS["decoder"]


def same(one, two):
    return jax.tree.structure(one) == jax.tree.structure(two) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    )


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "bit_fit"])
def test_apart_and_back(name):
    adapter = ADAPTERS[name]
    model = moved(start("decoder", name), adapter)
    ours = partition(model, trained(adapter))[0]
    base = detached(model)
    assert same(base, random_model(KIND))
    assert same(attached(base, adapter, ours), model)
    assert same(attached(base, adapter, flatten(ours)), model)


def test_what_does_not_fit():
    leaves = flatten(partition(start("decoder", "lora"), trained(ADAPTERS["lora"]))[0])
    first = next(iter(leaves))
    lacking = {name: leaf for name, leaf in leaves.items() if name != first}
    with pytest.raises(Failure, match=f"missing {first}"):
        attached(random_model(KIND), ADAPTERS["lora"], lacking)
    with pytest.raises(Failure, match=r"attention\.query\.a is .*, not"):
        attached(random_model(KIND), config.Lora(rank=3), leaves)


def test_only_adapters_have_optimizer_state():
    """In bytes: two moments of what is trained, and a counter or two."""
    ours, frozen = partition(start("decoder", "lora"), trained(ADAPTERS["lora"]))
    state = optimizers.build(config.AdamW(), 10).init(ours)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(ours))
    assert 2 * size <= sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= 2 * size + 16
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(frozen)) > 2 * size
    assert not any(jax.tree.leaves(optimizers.decay_mask(ours)))


def test_the_base_of_a_merge():
    """Over integers: into what they stand for, or into what they were made from, never into either unsaid."""
    base, batch = random_model(KIND), packed_batch(KIND, rows=2)
    adapter = config.Lora(rank=2)
    model = moved(adapted(quantized(base, config.Rounded()), adapter, KEY), adapter)
    wanted = scores(model, batch)
    real = np.asarray(batch.inputs.segments) > 0
    with pytest.raises(UsageError, match=r'(?s)Quantized.*base="rounded".*base="full"'):
        merged(model)
    limit = 2e-5 * max(1.0, float(jnp.std(wanted)))
    rounded = merged(model, "rounded")
    assert all(isinstance(w, Dense) for w in weights_of(rounded).values())
    assert jnp.abs(scores(rounded, batch) - wanted)[real].max() <= limit
    full = merged(model, "full", base)
    assert jnp.abs(scores(full, batch) - wanted)[real].max() > 100 * limit
    adapters = partition(model, trained(adapter))[0]
    assert same(full, merged(attached(base, adapter, adapters)))
    with pytest.raises(UsageError, match="go together"):
        merged(model, "full")
    with pytest.raises(UsageError, match="no weight blocks"):
        merged(model, "full", random_model(KINDS["rwkv4"]))
    with pytest.raises(UsageError, match="bottleneck is no matrix"):
        merged(start("decoder", "bottleneck"))


def test_over_other_adapters():
    """The outer one is trained; both are merged."""
    inner, outer = config.Lora(rank=2), config.Dora(rank=3)
    below = moved(start("decoder", "lora"), inner)
    model = adapted(below, outer, KEY)
    ours = flatten(partition(model, trained(outer))[0])
    assert not any(".base." in name for name in ours)
    assert isinstance(model.blocks.period[0].mlp.up.base, LoRA)
    assert same(detached(model), below)
    batch = packed_batch(KIND, rows=2)
    last = moved(model, outer)
    wanted = scores(last, batch)
    got = scores(merged(last), batch)
    real = np.asarray(batch.inputs.segments) > 0
    assert jnp.abs(got - wanted)[real].max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
    assert jnp.abs(wanted - scores(below, batch))[real].max() > 1e-2


AT_NIGHT = [pytest.param(name, marks=pytest.mark.nightly) for name in ("vera", "ia3", "bottleneck")]


@pytest.mark.parametrize("name", ["dora", *AT_NIGHT])
def test_over_integers(name):
    """Over weights of eight bits: the identity at first, then what the matrices that they stand for compute."""
    adapter, batch = ADAPTERS[name], packed_batch(KIND, rows=2)
    rounded = quantized(random_model(KIND), config.Rounded())
    first = adapted(rounded, adapter, KEY)
    assert same(detached(first), rounded)
    real = np.asarray(batch.inputs.segments) > 0
    wanted = scores(rounded, batch)
    limit = 2e-5 * max(1.0, float(jnp.std(wanted)))
    assert jnp.abs(scores(first, batch) - wanted)[real].max() <= limit
    last = moved(first, adapter)
    dense = map_weights(lambda _, w: Dense(w.dense(), w.bias, w.axes, w.inputs), rounded)
    over = attached(dense, adapter, partition(last, trained(adapter))[0])
    got = scores(last, batch)
    assert jnp.abs(scores(over, batch) - got)[real].max() <= limit
    assert jnp.abs(wanted - got)[real].max() > 100 * limit
