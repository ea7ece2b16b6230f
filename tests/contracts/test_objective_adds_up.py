"""A two-term objective over uneven micro-batches equals the whole batch; one (total, weight) pair does not."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.layers import random
from jaxlm.layers.contracts import Batch, Call
from jaxlm.layers.logprob import log_probability
from jaxlm.layers.names import flatten, partition
from jaxlm.parallel.layout import single_device
from jaxlm.train.state import State
from jaxlm.train.step import make_step


@dataclass(frozen=True)
class MaskedAndNext:
    """Predict masked tokens in place, and the next ones: two terms with weights of their own."""

    couples: ClassVar[str] = "token"
    coefficients: ClassVar[dict[str, float]] = {"masked": 1.0, "next": 0.5}

    def prepare(self, batch, key):
        """Mask row r's tokens with a probability that grows with r: micro-batches get unequal densities."""
        keys = random.row_keys(key, batch.rows)
        draw = jax.vmap(lambda k: jax.random.uniform(k, batch.targets.shape[1:]))(keys)
        masked = draw < (batch.rows[:, None] + 1) / 10
        return batch.replace(extra={"masked": masked.astype(jnp.float32)})

    def weights(self, batch):
        return {"masked": jnp.sum(batch.extra["masked"]), "next": jnp.sum(batch.weights)}

    def totals(self, model, batch, key, call, frozen):
        hidden = model(batch.inputs, call, key=random.row_keys(key, batch.rows)).hidden
        logits = model.logits(hidden, call)
        in_place, _ = log_probability(logits, batch.inputs.ids, call.layout)
        following, _ = log_probability(logits, batch.targets, call.layout)
        terms = {"masked": -jnp.sum(batch.extra["masked"] * in_place), "next": -jnp.sum(batch.weights * following)}
        return terms, {}


class SinglePair(MaskedAndNext):
    """The shortcut: one mean a micro-batch, averaged over micro-batches."""

    coefficients: ClassVar[dict[str, float]] = {"loss": 1.0}

    def weights(self, batch):
        return {"loss": jnp.float32(4.0)}

    def totals(self, model, batch, key, call, frozen):
        terms, _ = super().totals(model, batch, key, call, frozen)
        weights = MaskedAndNext.weights(self, batch)
        return {"loss": terms["masked"] / weights["masked"] + 0.5 * terms["next"] / weights["next"]}, {}


@pytest.fixture(scope="module")
def gradients(make, tokens):
    plain = make("decoder")
    model = plain.replace(config=dataclasses.replace(plain.config, dropout=0.2))
    weights = jnp.where(tokens.segments > 0, 1.0, 0.0) * (jnp.arange(12)[None] % 3 > jnp.arange(8)[:, None] % 3)
    batch = Batch(tokens, jnp.roll(tokens.ids, -1, axis=1), weights, jnp.arange(8), tokens.segments)
    sgd = optax.sgd(1.0)
    trained, frozen = partition(model, lambda name, leaf: True)
    state = State(jnp.zeros((), jnp.int32), trained, {"model": frozen}, sgd.init(trained))

    def run(objective, micro_batches):
        step = make_step(objective, sgd, Call(single_device()), seed=0, micro_batches=micro_batches)
        new, _ = jax.jit(step)(state, batch)
        return flatten(jax.tree.map(lambda old, new: old - new, state.model, new.model))

    return run


def error(got, expected):
    total = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in expected.values()))
    return max(np.linalg.norm(got[name] - leaf) / total for name, leaf in expected.items())


def test_micro_batches_equal_the_whole(gradients):
    assert error(gradients(MaskedAndNext(), 4), gradients(MaskedAndNext(), 1)) <= 1e-6


def test_a_single_pair_is_wrong(gradients):
    assert error(gradients(SinglePair(), 4), gradients(MaskedAndNext(), 1)) > 1e-2
