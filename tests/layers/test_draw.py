"""Tokens drawn from scores: by the softmax, each by itself, the same however the scores are spread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy import stats

from jaxlm.layers import random
from jaxlm.layers.draw import draw
from jaxlm.parallel.layout import single_device
from tests.tiny import layout

ONE = single_device()
LOGITS = np.random.default_rng(0).standard_normal(48).astype(np.float32) * 1.5
DRAWS = 60_000


@functools.cache
def counts(seed: int = 0) -> np.ndarray:
    """How often each of 48 tokens was drawn."""
    places = jnp.arange(DRAWS).reshape(300, 200)
    keys = random.token_keys(jax.random.key(seed), places // 50, places % 50)
    logits = jnp.broadcast_to(LOGITS, (300, 200, 48))
    found = jax.jit(lambda x, k: draw(x, k, ONE))(logits, jax.random.key_data(keys))
    return np.bincount(np.asarray(found).ravel(), minlength=48)


def test_draws_have_the_probabilities_of_the_softmax():
    """Chi-square over the vocabulary; the control is a softmax of logits a tenth larger."""
    expected = np.exp(LOGITS.astype(np.float64))
    assert stats.chisquare(counts(), DRAWS * expected / expected.sum()).pvalue > 1e-3
    wrong = np.exp(1.1 * LOGITS.astype(np.float64))
    assert stats.chisquare(counts(), DRAWS * wrong / wrong.sum()).pvalue < 1e-9


def test_neighbors_are_drawn_apart():
    """Of tokens that follow one another all pairs are as likely as their product: chi-square over the likeliest."""
    keys = random.token_keys(jax.random.key(2), *jnp.meshgrid(jnp.arange(300), jnp.arange(200), indexing="ij"))
    logits = jnp.broadcast_to(jnp.asarray(LOGITS[:6]), (300, 200, 6))
    found = np.asarray(jax.jit(lambda x, k: draw(x, k, ONE))(logits, jax.random.key_data(keys)))
    for one, other in ((found[:, ::2], found[:, 1::2]), (found[::2], found[1::2])):
        table = np.zeros((6, 6))
        np.add.at(table, (one.ravel(), other.ravel()), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("vocab", [16, 60])
def test_a_spread_vocabulary_draws_the_same(vocab):
    """On each of four devices a quarter of the scores, and of the noise."""
    where, rng = layout(tensor=4), np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((3, 8, vocab)), jnp.float32)
    keys = jnp.asarray(rng.integers(0, 2**32, (3, 8, 2)), jnp.uint32)
    wanted = np.asarray(draw(logits, keys, ONE))
    assert len(set((wanted // (vocab // 4)).ravel())) == 4
    spread, own = PartitionSpec(None, None, "tensor"), PartitionSpec(None, "tensor")
    run = jax.jit(where.spmd(lambda x, k: draw(x, k, where), (spread, own), own))
    np.testing.assert_array_equal(run(logits, keys), wanted)
