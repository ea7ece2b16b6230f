"""Sums in chunks are the sums at once: values and gradients, for any number of chunks that may not divide."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers.logprob import log_probability
from jaxlm.objectives.chunks import sums_and_tokens_by_chunk, sums_by_chunk
from jaxlm.parallel.layout import single_device
from tests.tiny import close

ROWS, LENGTH, EMBED, VOCAB = 3, 10, 6, 11
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.standard_normal((ROWS, LENGTH, EMBED)), jnp.float32)
HEAD = jnp.asarray(RNG.standard_normal((EMBED, VOCAB)), jnp.float32)
TARGETS = jnp.asarray(RNG.integers(0, VOCAB, (ROWS, LENGTH)))
WEIGHTS = jnp.asarray(RNG.choice([0.0, 1.0, 2.5], (ROWS, LENGTH)), jnp.float32)


def terms_of(head, names, softcap=None):
    def terms(hidden, targets, weights):
        logits = hidden @ head
        logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
        log_p, normalizer = log_probability(logits, targets, single_device())
        sums = {"a": -jnp.sum(weights * log_p), "b": jnp.sum(weights * normalizer**2)}
        return {name: sums[name] for name in names}

    return terms


def total(hidden, head, weights, names, chunks, softcap=None):
    terms = terms_of(head, names, softcap)
    data = (TARGETS, weights)
    sums = terms(hidden, *data) if chunks is None else sums_by_chunk(terms, hidden, data, chunks)
    factors = {"a": 0.7, "b": -0.3}
    return sum(factors[name] * value for name, value in sums.items())


@functools.cache
def gradients(names, chunks, softcap=None):
    function = functools.partial(total, names=names, chunks=chunks, softcap=softcap)
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(HIDDEN, HEAD, WEIGHTS)


@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("chunks", [3, 64])
def test_chunked_is_unchunked(names, chunks):
    close(gradients(names, chunks), gradients(names, None), 2e-6)


def test_soft_cap():
    close(gradients("a", 4, 2.0), gradients("a", None, 2.0), 2e-6)
    assert abs(gradients("a", 4, 2.0)[0] / gradients("a", 4)[0] - 1) > 0.01


def test_cross_entropy_in_float64():
    logits = np.asarray(HIDDEN, np.float64) @ np.asarray(HEAD, np.float64)
    normalizer = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits, np.asarray(TARGETS)[..., None], -1)[..., 0]
    weights = np.asarray(WEIGHTS)
    wanted = 0.7 * (weights * (normalizer - chosen)).sum() - 0.3 * (weights * normalizer**2).sum()
    np.testing.assert_allclose(gradients("ab", 4)[0], wanted, rtol=2e-6)


def test_nothing_weighted_is_nothing():
    for names in ("a", "ab"):
        value, parts = jax.value_and_grad(total, argnums=(0, 1))(HIDDEN, HEAD, 0 * WEIGHTS, names, 3)
        assert value == 0
        assert all((np.asarray(g) == 0).all() for g in parts)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_within_scan_and_remat(names):
    """As a step runs it: micro-batches in a scan, the gradient inside, everything under jit."""

    def loss(head, hidden):
        return jax.checkpoint(lambda h: total(h, head, WEIGHTS, names, 3))(jnp.sin(hidden) * head[0, 0])

    def step(head, hiddens):
        def body(carry, hidden):
            return jax.tree.map(jnp.add, carry, jax.grad(loss)(head, hidden)), None

        return jax.lax.scan(body, jnp.zeros_like(head), hiddens)[0]

    hiddens = jnp.stack([HIDDEN, HIDDEN + 1])
    direct = functools.partial(total, names=names, chunks=None)
    wanted = sum(jax.grad(lambda w, h: direct(jnp.sin(h) * w[0, 0], w, WEIGHTS))(HEAD, h) for h in hiddens)
    close({"head": jax.jit(step)(HEAD, hiddens)}, {"head": wanted}, 2e-6)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_bfloat16_hidden_and_head(names):
    hidden, head = HIDDEN.astype(jnp.bfloat16), HEAD.astype(jnp.bfloat16)
    for chunks in (1, 4):
        got = jax.grad(total, argnums=(0, 1))(hidden, head, WEIGHTS, names, chunks)
        assert {g.dtype for g in got} == {jnp.dtype("bfloat16")}
        for one, wanted in zip(got, gradients(names, None)[1]):
            error = np.linalg.norm(np.asarray(one, np.float32) - np.asarray(wanted)) / np.linalg.norm(wanted)
            assert error < 2e-2


@pytest.mark.parametrize("names", ["a", "ab"])
def test_weights_are_data(names):
    """One term or two: no gradient flows to what is aligned with the tokens."""
    gradient = jax.grad(total, argnums=2)(HIDDEN, HEAD, WEIGHTS, names, 3)
    assert (np.asarray(gradient) == 0).all()


@pytest.mark.parametrize("names", ["a", "ab"])
def test_what_is_kept_of_each_token(names):
    """In the row's order, whatever the chunks; the sums and their gradients stay as they are."""

    def both(head, *piece):
        return terms_of(head, names)(*piece), jnp.argmax(piece[0] @ head, axis=-1)

    def summed(head, chunks):
        terms = functools.partial(both, head)
        sums, kept = sums_and_tokens_by_chunk(terms, HIDDEN, (TARGETS, WEIGHTS), chunks)
        return 0.7 * sums["a"], kept

    (value, kept), gradient = jax.value_and_grad(summed, has_aux=True)(HEAD, 3)
    np.testing.assert_array_equal(kept, np.argmax(HIDDEN @ HEAD, axis=-1))
    wanted, alone = jax.value_and_grad(lambda head: 0.7 * terms_of(head, names)(HIDDEN, TARGETS, WEIGHTS)["a"])(
        HEAD
    )
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    close({"head": gradient}, {"head": alone}, 2e-6)
