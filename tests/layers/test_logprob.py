"""Log-probabilities against float64, and against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm.layers import logprob
from jaxlm.layers.logprob import (
    first_tokens,
    largest_log_probabilities,
    likeliest,
    log_probabilities,
    log_probability,
)
from jaxlm.parallel.layout import single_device
from tests.tiny import layout

ONE = single_device()
RNG = np.random.default_rng(0)
LOGITS = (RNG.standard_normal((3, 4, 17)) * 20).astype(np.float32)
TARGETS = RNG.integers(0, 17, (3, 4))


def exact(logits):
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return top + np.log(np.exp(logits - top).sum(-1, keepdims=True))


def test_target_and_normalizer():
    log_p, normalizer = log_probability(jnp.asarray(LOGITS), jnp.asarray(TARGETS), ONE)
    wanted = np.take_along_axis(LOGITS - exact(LOGITS), TARGETS[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_p, wanted, atol=2e-5)
    np.testing.assert_allclose(normalizer, exact(LOGITS)[..., 0], rtol=1e-6)
    np.testing.assert_allclose(log_probabilities(jnp.asarray(LOGITS)), LOGITS - exact(LOGITS), atol=2e-5)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    log_p, normalizer = log_probability(logits, jnp.asarray(TARGETS), ONE)
    assert log_p.dtype == normalizer.dtype == jnp.float32
    np.testing.assert_allclose(normalizer, exact(np.asarray(logits, np.float32))[..., 0], rtol=1e-6)


def test_targets_outside_the_vocabulary_are_loud():
    logits = jnp.asarray(LOGITS[:1])
    log_p, _ = log_probability(logits, jnp.array([[17, -1, -100, 0]]), ONE)
    np.testing.assert_array_equal(np.isnan(log_p), [[True, True, True, False]])


def test_huge_logits_do_not_overflow():
    log_p, _ = log_probability(jnp.array([[1e30, 0.0, -1e30]]), jnp.array([0]), ONE)
    assert log_p[0] == 0.0


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS.reshape(-1, 17), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(TARGETS.reshape(-1)), reduction="sum")
    loss.backward()
    value, gradient = jax.value_and_grad(lambda x: -log_probability(x, jnp.asarray(TARGETS), ONE)[0].sum())(
        jnp.asarray(LOGITS)
    )
    np.testing.assert_allclose(value, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy().reshape(LOGITS.shape), atol=1e-6)


def test_the_gradient_is_the_same_on_every_backend():
    cotangent = jnp.asarray(RNG.standard_normal(TARGETS.shape), jnp.float32)
    targets = jnp.asarray(TARGETS).at[0, 0].set(-1).at[1, 1].set(17)
    wanted = np.zeros(LOGITS.shape, np.float32)
    for place in np.ndindex(*TARGETS.shape):
        if 0 <= targets[place] < 17:
            wanted[(*place, targets[place])] = cotangent[place]
    for gradient in (logprob._by_comparison, logprob._by_scatter):
        np.testing.assert_array_equal(gradient(targets, cotangent, vocab=17), wanted)


def test_a_vocabulary_spread_over_devices():
    """Values, normalizers and gradients of one device; a target outside is loud there too."""
    where = layout(tensor=4)
    logits = jnp.asarray(RNG.standard_normal((3, 4, 16)) * 20, jnp.float32)
    targets = jnp.asarray(RNG.integers(0, 16, (3, 4)))
    weights = jnp.asarray(RNG.standard_normal((2, 3, 4)), jnp.float32)

    def loss(logits, targets, weights, on):
        log_p, normalizer = log_probability(logits, targets, on)
        return jnp.sum(weights[0] * log_p + weights[1] * normalizer), (log_p, normalizer)

    def of_a_device(logits, targets, weights):
        return jax.value_and_grad(loss, has_aux=True)(logits, targets, weights, where)

    vocab, own, each = (PartitionSpec(*(None,) * n, "tensor") for n in (2, 1, 2))
    run = jax.jit(where.spmd(of_a_device, (vocab, own, each), ((PartitionSpec(), (own, own)), vocab)))
    (_, wanted), gradient = jax.value_and_grad(loss, has_aux=True)(logits, targets, weights, ONE)
    (_, got), other = run(logits, targets, weights)
    for one, two in zip((*wanted, gradient), (*got, other), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
    log_p = run(logits, targets.at[0, 0].set(16).at[1, 1].set(-1), weights)[0][1][0]
    assert np.isnan(log_p[0, 0])
    assert np.isnan(log_p[1, 1])
    assert np.isnan(log_p).sum() == 2


def test_the_likeliest_token():
    """Where the target is numpy's argmax, the first of ties; the same where devices share a vocabulary."""
    draw = np.random.default_rng(1)
    logits = jnp.asarray(draw.standard_normal((3, 4, 16)), jnp.float32).at[0, 0].set(1.0)  # all alike
    logits = logits.at[1, 0, 9].set(9.0).at[1, 0, 14].set(9.0).at[1, 1, 3].set(9.0).at[1, 1, 2].set(9.0)
    best = np.argmax(logits, -1)
    targets = jnp.asarray(np.where(draw.random((3, 4)) < 0.5, best, (best + 5) % 16))
    targets = targets.at[0, 0].set(7).at[1, 0].set(9).at[1, 1].set(3)
    wanted = np.asarray(targets) == best
    assert 2 < wanted.sum() < 10
    assert wanted[1, :2].tolist() == [True, False]
    np.testing.assert_array_equal(likeliest(logits, targets, ONE), wanted)
    assert not np.any(jax.grad(lambda x: likeliest(x, targets, ONE).sum())(logits))
    where = layout(tensor=4)
    vocab, own = PartitionSpec(None, None, "tensor"), PartitionSpec(None, "tensor")
    run = jax.jit(where.spmd(lambda x, t: likeliest(x, t, where), (vocab, own), own))
    np.testing.assert_array_equal(run(logits, targets), wanted)


def test_the_largest_log_probabilities():
    """As numpy sorts them, of equals the first; the same where devices share a vocabulary."""
    logits = jnp.asarray(RNG.standard_normal((3, 4, 16)), jnp.float32).at[0, 0].set(1.0)  # all alike
    logits = logits.at[1, 0, 9].set(9.0).at[1, 0, 14].set(9.0).at[1, 0, 2].set(9.0)
    wanted = np.argsort(-np.asarray(logits), axis=-1, kind="stable")[..., :6]
    assert wanted[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert wanted[1, 0, :3].tolist() == [2, 9, 14]
    exact = np.asarray(logits, np.float64)
    exact = np.take_along_axis(exact - np.log(np.exp(exact).sum(-1, keepdims=True)), wanted, -1)
    where = layout(tensor=4)
    vocab, own = PartitionSpec(None, None, "tensor"), PartitionSpec(None, "tensor")
    for count in (6, 3):  # more than a device has, and fewer
        spread = where.spmd(lambda x, n=count: largest_log_probabilities(x, n, where), (vocab,), (own, own))
        for logs, tokens in (largest_log_probabilities(logits, count, ONE), jax.jit(spread)(logits)):
            np.testing.assert_array_equal(tokens, wanted[..., :count])
            np.testing.assert_allclose(logs, exact[..., :count], rtol=1e-6)


def test_the_first_tokens_of_a_vocabulary():
    """Cut off on one device, and impossible where devices share it."""
    logits = jnp.asarray(RNG.standard_normal((2, 4, 16)), jnp.float32)
    np.testing.assert_array_equal(first_tokens(logits, 10, ONE), logits[..., :10])
    np.testing.assert_array_equal(first_tokens(logits, 16, ONE), logits)
    where = layout(tensor=4)
    vocab = PartitionSpec(None, None, "tensor")
    run = jax.jit(where.spmd(lambda x: first_tokens(x, 10, where), (vocab,), vocab))
    np.testing.assert_array_equal(run(logits), jnp.where(jnp.arange(16) < 10, logits, logprob.NEVER))
