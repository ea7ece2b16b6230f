"""Processors against a sort in float64, and draws against the exact distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.config.errors import UsageError
from jaxlm.sampling.logits import (
    Settings,
    at_position,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    processed,
    sample_keys,
)

VOCAB = 32
DRAWS = 20_000
ALPHA = 1e-6
SETTINGS = {"temperature": 0.5, "top_k": 20, "top_p": 0.8, "min_p": 0.01}


def reference_kept(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Kept tokens and their float64 logits, for one row, by sorting; ties of the last one kept stay.

    Also the distances from the thresholds of top-p and min-p, which float32 may not tell from zero.
    """
    x = np.asarray(logits, np.float64) / temperature
    x, margins = np.where(np.isfinite(x), x, -np.inf), [np.inf]
    if min_p > 0:
        share = np.exp(x - x.max())
        margins += list(np.abs(share[share > 0] - min_p))
        x = np.where(share >= min_p, x, -np.inf)
    if top_k > 0:
        kth = np.sort(x)[::-1][min(top_k, len(x)) - 1]
        x = np.where(x >= kth, x, -np.inf)
    if top_p < 1:
        p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        better = np.array([p[x > value].sum() for value in x])
        margins += list(np.abs(better - top_p))
        x = np.where(better < top_p, x, -np.inf)
    return np.isfinite(x), x, min(margins)


def reference_distribution(logits, **settings):
    kept, x, _ = reference_kept(logits, **settings)
    p = np.where(kept, np.exp(np.where(kept, x, 0) - x[kept].max()), 0.0)
    return p / p.sum()


def awkward_logits():
    """200 rows of 97: smooth, with exact ties, with -inf, with zeros of both signs, one-hot."""
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal((200, 97))
    x[40:80] = np.round(x[40:80])
    x[80:120][rng.random((40, 97)) < 0.5] = -np.inf
    x[120:140] = np.round(x[120:140]) * np.where(rng.random((20, 97)) < 0.5, 0.0, 1.0)
    x[120:140][::2] *= -1.0
    x[140:160] = np.where(np.arange(97) == rng.integers(97, size=(20, 1)), 5.0, -np.inf)
    x[160:170] = 1.0
    x[170:] -= 1000.0
    return x.astype(np.float32)


def full(rows, value):
    return jnp.full(rows, value)


@pytest.mark.parametrize("top_k", [0, 1, 2, 5, 50, 96, 97, 1000])
def test_top_k_keeps_what_a_sort_keeps(top_k):
    x = awkward_logits()
    y = np.asarray(jax.jit(keep_top_k)(jnp.asarray(x), full(len(x), top_k)))
    want = np.stack([reference_kept(row, top_k=top_k)[0] for row in x])
    np.testing.assert_array_equal(np.isfinite(y), want)
    np.testing.assert_array_equal(y[want], x[want])


@pytest.mark.parametrize("top_p", [1e-4, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_what_a_sort_keeps(top_p):
    x = awkward_logits()
    y = np.asarray(jax.jit(keep_top_p)(jnp.asarray(x), full(len(x), top_p)))
    compared = 0
    for row, got in zip(x, y, strict=True):
        want, _, margin = reference_kept(row, top_p=top_p)
        if margin < 1e-6:
            continue
        compared += 1
        np.testing.assert_array_equal(np.isfinite(got), want)
        np.testing.assert_array_equal(got[want], row[want])
    assert compared > 150


@pytest.mark.parametrize("min_p", [0.0, 1e-6, 0.05, 0.5, 0.99])
def test_min_p_keeps_a_share_of_the_best(min_p):
    x = awkward_logits()
    y = np.asarray(keep_min_p(jnp.asarray(x), full(len(x), min_p)))
    for row, got in zip(x, y, strict=True):
        want, _, margin = reference_kept(row, min_p=min_p)
        if margin > 1e-6 or min_p == 0:
            np.testing.assert_array_equal(np.isfinite(got), want)


def test_ties_at_a_threshold_all_stay():
    x = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]], jnp.float32))
    assert np.isfinite(keep_top_k(x, full(1, 2))).sum() == 4
    assert np.isfinite(keep_top_p(x, full(1, 0.5))).sum() == 4
    assert np.isfinite(keep_top_p(x, full(1, 0.39))).sum() == 1
    zeros = jnp.array([[0.0, -0.0, -1.0, -2.0]], jnp.float32)
    assert np.isfinite(keep_top_k(zeros, full(1, 1))).sum() == 2


def test_the_token_that_crosses_p_stays():
    x = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]], jnp.float32))
    assert [int(np.isfinite(keep_top_p(x, full(1, p))).sum()) for p in (0.2, 0.6, 0.9, 0.96)] == [1, 2, 3, 4]


def test_temperature_comes_before_top_p():
    x = jnp.array([[3.0, 2.0, 1.0]], jnp.float32)
    kept = np.isfinite(processed(x, Settings.of(1, temperature=0.5, top_p=0.8)))
    np.testing.assert_array_equal(kept, [[True, False, False]])
    assert np.isfinite(processed(x, Settings.of(1, top_p=0.8))).sum() == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_settings_mix_in_a_batch_and_equal_those_alone(dtype):
    x = jnp.asarray(awkward_logits()[:6], dtype)
    choices = [{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}, SETTINGS]
    alone = [Settings.of(1, **choice) for choice in choices]
    mixed = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alone)
    y = processed(x, mixed)
    assert y.dtype == jnp.float32
    for i, settings in enumerate(alone):
        np.testing.assert_array_equal(y[i : i + 1], processed(x[i : i + 1], settings))
    np.testing.assert_array_equal(y[0], x[0].astype(jnp.float32))


def test_temperature_0_is_the_first_of_the_best():
    x = jnp.array([[1.0, 7.0, 7.0, -np.inf], [-np.inf, -np.inf, -5.0, -np.inf]], jnp.float32)
    y = np.asarray(processed(x, Settings.of(2, temperature=0.0, top_k=3, top_p=0.9, min_p=0.1)))
    np.testing.assert_array_equal(y, [[-np.inf, 0, -np.inf, -np.inf], [-np.inf, -np.inf, 0, -np.inf]])


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1.0}, {"temperature": 1e-9}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 2.0}],
)
def test_settings_outside_their_range_are_refused(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Settings.of(2, **bad)


# --- the distribution of draws -----------------------------------------------------------------------------


def sharp_logits():
    """Chosen so that the tokens at the thresholds matter: a wrong sampler differs by percents."""
    return (1.5 * np.random.default_rng(5).standard_normal(VOCAB)).astype(np.float32)


def rejected(ids, p):
    """A draw outside the support, or a chi-square beyond 1 - ALPHA."""
    counts = np.bincount(np.asarray(ids), minlength=VOCAB)
    if counts[p == 0].any():
        return True
    expected = p[p > 0] * len(ids)
    assert expected.min() > 5
    statistic = np.sum((counts[p > 0] - expected) ** 2 / expected)
    return bool(statistic > stats.chi2.isf(ALPHA, len(expected) - 1))


def keys_over_rows():
    keys = sample_keys(jnp.arange(DRAWS), jnp.zeros(DRAWS, jnp.int32))
    return at_position(keys, full(DRAWS, 7))


def keys_over_samples():
    keys = sample_keys(jnp.zeros(DRAWS, jnp.int32), jnp.arange(DRAWS))
    return at_position(keys, full(DRAWS, 7))


def keys_over_positions():
    keys = sample_keys(full(DRAWS, 42), jnp.zeros(DRAWS, jnp.int32))
    return at_position(keys, jnp.arange(DRAWS))


def drawn(process, keys):
    @jax.jit
    def run(logits, keys):
        return draw(process(jnp.broadcast_to(logits, (DRAWS, VOCAB))), keys)

    return run(jnp.asarray(sharp_logits()), keys)


@pytest.mark.parametrize("keys", [keys_over_rows, keys_over_samples, keys_over_positions])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8, "top_p": 0.8}, SETTINGS], ids=["plain", "p", "all"])
def test_draws_follow_the_distribution(keys, settings):
    p = reference_distribution(sharp_logits(), **settings)
    ids = drawn(lambda x: processed(x, Settings.of(DRAWS, **settings)), keys())
    assert not rejected(ids, p)


def crossing_token_dropped(x):
    p = jnp.sort(jax.nn.softmax(x / 0.8))[:, ::-1]
    last = jnp.maximum(jnp.sum(jnp.cumsum(p, axis=-1) <= 0.8, axis=-1) - 1, 0)
    floor = jnp.take_along_axis(p, last[:, None], axis=-1)
    return jnp.where(jax.nn.softmax(x / 0.8) >= floor, x / 0.8, -jnp.inf)


def temperature_last(x):
    return keep_top_p(x, full(DRAWS, 0.8)) / 0.8


def slightly_warmer(x):
    return processed(x, Settings.of(DRAWS, temperature=0.84, top_p=0.8))


@pytest.mark.parametrize("wrong", [crossing_token_dropped, temperature_last, slightly_warmer])
def test_wrong_samplers_are_rejected(wrong):
    p = reference_distribution(sharp_logits(), temperature=0.8, top_p=0.8)
    assert rejected(drawn(wrong, keys_over_rows()), p)


def test_one_key_for_all_rows_is_rejected():
    p = reference_distribution(sharp_logits())
    keys = sample_keys(jnp.zeros(DRAWS, jnp.int32), jnp.zeros(DRAWS, jnp.int32))
    assert rejected(drawn(lambda x: x, at_position(keys, full(DRAWS, 7))), p)
