"""The step: micro-batches add up to the batch, and what surrounds the gradient does what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import random
from jaxlm.layers.names import combine, flatten, map_named, partition
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.state import State, place
from jaxlm.train.step import make_step
from tests.tiny import CALL, GLOBAL, SIZES, close, layout, packed_batch, random_model

KIND = config.Decoder(**SIZES, layers=2, block=GLOBAL, dropout=0.2)
RATE = 0.1
BATCH = packed_batch(KIND)
# Of two micro-batches (even and odd rows) one weighs many times the other.
BATCH = dataclasses.replace(BATCH, weights=BATCH.weights * jnp.array([9.0, 1, 8, 1, 7, 1, 6, 1])[:, None])
# Plain descent that keeps the gradient it was given.
DESCENT = optax.chain(optax.trace(decay=0.0), optax.scale(-RATE))


def initial(where=lambda *_: True, optimizer=None, ema=False):
    model, frozen = partition(random_model(KIND, std=0.1), where)
    optimizer = optimizer or DESCENT
    copy = jax.tree.map(jnp.copy, model) if ema else None
    return State(jnp.int32(4), model, {"model": frozen}, optimizer.init(model), copy)


def observed(parameters, gradients, updates):
    return {name: jnp.sum(leaf) for name, leaf in flatten(gradients).items()}


@functools.cache
def compiled(micro_batches=1, **options):
    objective = Prediction(z_loss=0.01, chunks=4)
    return jax.jit(
        make_step(objective, DESCENT, CALL, seed=1, micro_batches=micro_batches, observe=observed, **options)
    )


@functools.cache
def stepped(micro_batches=1, **options):
    state = initial(ema="ema" in options)
    return state, *compiled(micro_batches, **options)(state, BATCH)


def gradient(state):
    return state.optimizer[0].trace


def test_micro_batches_are_the_batch():
    """With dropout on, two terms, and unequal weights."""
    _, whole, metrics = stepped()
    _, split, split_metrics = stepped(micro_batches=2)
    close(gradient(split), gradient(whole), 1e-6)
    for name in ("loss", "cross_entropy", "z", "gradient_norm"):
        np.testing.assert_allclose(split_metrics[name], metrics[name], rtol=1e-6, err_msg=name)
    even, odd = (np.asarray(BATCH.weights)[i::2].sum() for i in range(2))
    assert even > 4 * odd, "the parts must weigh differently for this to mean anything"


def test_the_terms_make_the_loss():
    _, new, metrics = stepped()
    np.testing.assert_allclose(metrics["loss"], metrics["cross_entropy"] + 0.01 * metrics["z"], rtol=1e-6)
    assert int(new.step) == 5
    assert int(metrics["first_bad_leaf"]) == -1


def test_clipping_scales_the_whole_gradient():
    state, free, metrics = stepped()
    norm = float(metrics["gradient_norm"])
    exact = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in jax.tree.leaves(gradient(free))))
    np.testing.assert_allclose(norm, exact, rtol=1e-6)
    _, clipped, clipped_metrics = stepped(clip=norm / 3, ema=0.75)
    np.testing.assert_allclose(
        clipped_metrics["gradient_norm"], norm, rtol=1e-6, err_msg="reported before clipping"
    )
    close(gradient(clipped), jax.tree.map(lambda g: g / 3, gradient(free)), 2e-6)
    close(clipped.model, jax.tree.map(lambda x, g: x - RATE * g / 3, state.model, gradient(free)), 1e-6)


def test_moving_average():
    state, new, _ = stepped(clip=float(stepped()[2]["gradient_norm"]) / 3, ema=0.75)
    close(new.ema, jax.tree.map(lambda old, x: 0.75 * old + 0.25 * x, state.model, new.model), 1e-6)


def test_the_first_leaf_that_is_not_finite():
    """One infinite bias spoils some gradients and not others: the number is that of the first by name."""
    state = initial()
    names = list(flatten(state.model))
    broken = map_named(lambda name, leaf: leaf * jnp.inf if name.endswith("mlp.down.kernel") else leaf, state.model)
    _, metrics = compiled()(dataclasses.replace(state, model=broken), BATCH)
    bad = [name for name in names if not np.isfinite(metrics[name])]
    assert bad
    assert int(metrics["first_bad_leaf"]) == names.index(bad[0])
    assert int(stepped()[2]["first_bad_leaf"]) == -1


def test_the_loss_falls_the_state_is_donated_and_the_frozen_half_stays():
    optimizer, losses = optax.adamw(1e-2), []
    step = jax.jit(make_step(Prediction(), optimizer, CALL, seed=1, clip=1.0, ema=0.9), donate_argnums=0)
    first = initial(lambda name, _: "norm" not in name, optimizer, ema=True)
    state = jax.tree.map(jnp.copy, first)
    for _ in range(20):
        old = state
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.model, old.optimizer, old.ema)))
    assert losses[-1] < losses[0] - 1
    assert int(state.step) == 24
    jax.tree.map(np.testing.assert_array_equal, state.frozen, first.frozen)
    before, after = flatten(first.model), flatten(state.model)
    assert before.keys() == after.keys()
    assert all("norm" not in name and not np.array_equal(before[name], after[name]) for name in before)


def test_every_leaf_of_the_state_has_a_place():
    where, optimizer = layout(fsdp=2, tensor=2), optax.adamw(1e-2)
    state = initial(lambda name, _: "norm" not in name, optimizer, ema=True)
    places = place(state, optimizer, where)
    assert jax.tree.structure(places) == jax.tree.structure(state)
    named = flatten(places)
    kernel = "blocks.period.0.attention.query.kernel"
    moments = [name for name in named if name.startswith("optimizer") and name.endswith(kernel)]
    assert len(moments) == 2
    for name in (f"model.{kernel}", f"ema.{kernel}", *moments):
        assert named[name].spec == where.stored_spec(("embed", "heads", "head"), (2, 16, 4, 8))
    assert named["step"].is_fully_replicated


def test_eight_devices_step_as_one():
    """Two micro-batches, dropout on."""
    where = layout(fsdp=2, tensor=2)
    call, (state, wanted, wanted_metrics) = dataclasses.replace(CALL, layout=where), stepped(micro_batches=2)
    step = make_step(Prediction(0.01, chunks=4), DESCENT, call, seed=1, micro_batches=2)
    places = place(state, DESCENT, where)
    batch = jax.tree.map(lambda leaf: jax.device_put(leaf, where.sharding(("row",), leaf.shape[:1])), BATCH)
    new, metrics = jax.jit(step, out_shardings=(places, None))(jax.device_put(state, places), batch)
    np.testing.assert_allclose(metrics["loss"], wanted_metrics["loss"], rtol=2e-6)
    close(gradient(new), gradient(wanted))
    assert jax.tree.map(lambda x: x.sharding, new.model) == places.model


def test_what_shares_a_loss_over_the_batch_is_not_split():
    class Contrastive(Prediction):
        couples = "batch"

    make_step(Contrastive(), optax.sgd(RATE), CALL, seed=1)
    with pytest.raises(UsageError, match=r"micro_batches=2.*Contrastive"):
        make_step(Contrastive(), optax.sgd(RATE), CALL, seed=1, micro_batches=2)


def test_a_batch_that_does_not_split_is_refused():
    step = make_step(Prediction(), optax.sgd(RATE), CALL, seed=1, micro_batches=3)
    with pytest.raises(UsageError, match=r"8 rows.*micro_batches=3"):
        jax.eval_shape(step, initial(), BATCH)


@dataclasses.dataclass(frozen=True)
class Writing(Prediction):
    """Learns to say everything backward: texts of its own in place of those it is given."""

    def rollout(self, model, batch, key, call, frozen):
        assert flatten(model).keys() == flatten(combine(initial().model, frozen["model"])).keys()
        drawn = jax.random.randint(key, batch.targets.shape, 0, SIZES["vocab"])
        return dataclasses.replace(batch, targets=drawn)


def test_a_step_learns_on_what_the_model_writes():
    """Drawn once a step, by its own key, before anything is prepared or split."""
    state = initial()
    step = jax.jit(make_step(Writing(chunks=4), DESCENT, CALL, seed=1, micro_batches=2))
    _, metrics = step(state, BATCH)
    key = random.key(1, state.step, "rollout")
    written = Writing().rollout(state.whole(), BATCH, key, CALL, state.frozen)
    plain = jax.jit(make_step(Prediction(chunks=4), DESCENT, CALL, seed=1, micro_batches=2))
    np.testing.assert_allclose(metrics["loss"], plain(state, written)[1]["loss"], rtol=1e-6)
    assert abs(float(metrics["loss"]) - float(plain(state, BATCH)[1]["loss"])) > 1e-3
