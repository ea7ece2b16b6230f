"""Several adapters at once compute what each computes alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.adapters.build import adapted, trained
from jaxlm.adapters.several import several, together
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import combine, partition
from tests.adapters.test_kinds import ADAPTERS, KEY, KINDS, scores, start
from tests.tiny import CALL, layout, packed_batch, random_model

KIND = KINDS["decoder"]
BATCH = packed_batch(KIND, rows=4)
REAL = np.asarray(BATCH.inputs.segments) > 0


def tuned(name, seed):
    """The trained half of one of several adapters."""
    adapter = ADAPTERS[name]
    ours, _ = partition(start("decoder", name), trained(adapter))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype), ours)


def choosing(*adapters):
    return BATCH.replace(inputs=BATCH.inputs.replace(adapters=jnp.asarray(adapters, jnp.int32)))


def test_trained_in_one_program():
    """Three fine-tunings of one base, mapped, and one by one."""
    frozen = partition(start("decoder", "lora"), trained(ADAPTERS["lora"]))[1]
    starts = [tuned("lora", seed) for seed in range(3)]
    optimizer = optax.sgd(0.1)

    def loss(ours, frozen):
        return jnp.mean(jnp.square(combine(ours, frozen)(BATCH.inputs, CALL).hidden))

    @jax.jit
    def train(ours, frozen):
        def step(carry, _):
            ours, state = carry
            value, gradients = jax.value_and_grad(loss)(ours, frozen)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(ours, updates), state), value

        (ours, _), values = jax.lax.scan(step, (ours, optimizer.init(ours)), length=3)
        return ours, values

    mapped, values = jax.jit(jax.vmap(train, (0, None)))(together(starts), frozen)
    for number, one in enumerate(starts):
        wanted, alone = train(one, frozen)
        np.testing.assert_allclose(values[number], alone, rtol=2e-6)
        for got, leaf in zip(jax.tree.leaves(mapped), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(got[number], leaf, atol=2e-6)
    assert jnp.abs(values[0] - values[1]).min() > 1e-4


AT_NIGHT = [pytest.param(name, marks=pytest.mark.nightly) for name in ("vera", "ia3", "bottleneck")]


@pytest.mark.parametrize("name", ["lora", "dora", *AT_NIGHT])
def test_each_row_with_its_own(name):
    model = start("decoder", name)
    frozen = partition(model, trained(ADAPTERS[name]))[1]
    adapters = [tuned(name, seed) for seed in range(2)]
    many = several(model, adapters)
    got = scores(many, choosing(1, 0, -1, 1))
    alone = [scores(combine(one, frozen), BATCH) for one in adapters] + [scores(random_model(KIND), BATCH)]
    limit = 1e-5 * max(1.0, float(jnp.std(alone[0])))
    for row, number in enumerate((1, 0, 2, 1)):
        real = REAL[row]
        for other, wanted in enumerate(alone):
            error = np.abs(np.asarray(got - wanted)[row][real]).max()
            assert error <= limit if other == number else error > 100 * limit


def test_numbers_that_no_adapter_has():
    """NaN in their rows: neither the next adapter nor the base alone is taken for what was asked for."""
    many = several(start("decoder", "lora"), [tuned("lora", seed) for seed in range(2)])
    got = np.asarray(scores(many, choosing(2, 0, 3, -5)))
    assert np.isnan(got[[0, 2]][REAL[[0, 2]]]).all()
    assert np.isfinite(got[[1, 3]]).all()
    with pytest.raises(UsageError, match="holds 2 adapters"):
        scores(many, BATCH)


@pytest.mark.nightly
def test_decoding_and_meshes():
    """Rows keep their adapters in steps and on eight devices."""
    many = several(start("decoder", "lora"), [tuned("lora", seed) for seed in range(2)])
    batch = packed_batch(KIND, rows=8)
    tokens = batch.inputs.replace(adapters=jnp.arange(8) % 3 - 1)
    wanted = jax.jit(lambda model: model(tokens, CALL).hidden)(many)
    real = np.asarray(tokens.segments) > 0

    def cut(start, stop):
        parts = (x[:, start:stop] for x in (tokens.ids, tokens.segments, tokens.positions))
        return type(tokens)(*parts, tokens.adapters)

    step = jax.jit(lambda tokens, cache: many(tokens, CALL, cache=cache))
    output = step(cut(0, 5), many.empty_cache(8, 12, CALL))
    hidden = [output.hidden]
    for place in range(5, 12):
        output = step(cut(place, place + 1), output.cache)
        hidden.append(output.hidden)
    assert jnp.abs(jnp.concatenate(hidden, axis=1) - wanted)[real].max() <= 2e-5
    where = layout(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(many, shardings(many, where))
    call = dataclasses.replace(CALL, layout=where)
    got = jax.jit(lambda model, tokens: model(tokens, call).hidden)(placed, tokens)
    assert jnp.abs(got - wanted)[real].max() <= 2e-5


def test_refusals():
    model = start("decoder", "lora")
    with pytest.raises(UsageError, match="at least one"):
        several(model, [])
    larger = partition(adapted(random_model(KIND), config.Lora(rank=3), KEY), trained(ADAPTERS["lora"]))[0]
    with pytest.raises(UsageError, match="adapter 1 is of another kind or size"):
        several(model, [tuned("lora", 0), larger])
    biases = partition(random_model(KIND), trained(config.BitFit()))[0]
    with pytest.raises(UsageError, match=r"no adapter holds, such as blocks.*bias"):
        several(model, [biases])
