"""RWKV-4's recurrence against the direct sum of equation 16, which looks back at every token."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.layers.wkv import WkvState, wkv4

ROWS, LENGTH, EMBED = 2, 11, 5
RNG = np.random.default_rng(0)
KEY, VALUE = RNG.standard_normal((2, ROWS, LENGTH, EMBED)).astype(np.float32)
DECAY = np.exp(RNG.standard_normal(EMBED)).astype(np.float32)
BONUS = RNG.standard_normal(EMBED).astype(np.float32)
NEVER = np.zeros((ROWS, LENGTH), bool)


def direct(key, value, starts=NEVER):
    """wkv_t = (sum_i<t e^(-(t-1-i)w + k_i) v_i + e^(u + k_t) v_t) / the same sum without v."""
    key, value, out = key.astype(np.float64), value.astype(np.float64), np.zeros(key.shape)
    for row, t in np.ndindex(key.shape[:2]):
        begin = max([0, *(s for s in range(t + 1) if starts[row, s])])
        weights = [np.exp(-(t - 1 - i) * DECAY + key[row, i]) for i in range(begin, t)]
        weights = np.array([*weights, np.exp(BONUS + key[row, t])])
        out[row, t] = (weights * value[row, begin : t + 1]).sum(0) / weights.sum(0)
    return out


def run(key, value, starts=NEVER, padding=NEVER, state=None, form="scan"):
    state = WkvState.empty(ROWS, EMBED) if state is None else state
    return wkv4(*(jnp.asarray(x) for x in (DECAY, BONUS, key, value, starts, padding)), state, form)


def test_the_direct_sum():
    np.testing.assert_allclose(run(KEY, VALUE)[0], direct(KEY, VALUE), atol=2e-6)


def test_a_document_forgets_the_one_before():
    starts = NEVER.copy()
    starts[0, [0, 4]], starts[1, 7] = True, True
    got = run(KEY, VALUE, starts)[0]
    np.testing.assert_allclose(got, direct(KEY, VALUE, starts), atol=2e-6)
    assert np.abs(got - direct(KEY, VALUE)).max() > 1e-2


def test_keys_beyond_the_range_of_exp():
    large = 100 * KEY
    got, state = run(large, VALUE)
    # The exponents cancel in float64, whose exp reaches further.
    np.testing.assert_allclose(got, direct(large, VALUE), atol=2e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_chunks_hand_on_the_state_and_padding_leaves_it():
    whole = run(KEY, VALUE)[0]
    padding = NEVER[:, :6].copy()
    padding[:, 4:] = True
    first, state = run(KEY[:, :6], VALUE[:, :6], NEVER[:, :6], padding)
    second, _ = run(KEY[:, 4:], VALUE[:, 4:], NEVER[:, 4:], NEVER[:, 4:], state)
    np.testing.assert_allclose(np.concatenate([first[:, :4], second], 1), whole, atol=2e-6)


def test_gradients_by_differences():
    def loss(key, value):
        return jnp.sum(jnp.sin(3 * run(key, value)[0]))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(KEY), jnp.asarray(VALUE))
    way, step = RNG.standard_normal((2, ROWS, LENGTH, EMBED)), 1e-5
    there, back = (np.sin(3 * direct(KEY + s * way[0], VALUE + s * way[1])).sum() for s in (step, -step))
    slope = sum(np.sum(np.asarray(g, np.float64) * w) for g, w in zip(gradients, way))
    np.testing.assert_allclose(slope, (there - back) / (2 * step), rtol=1e-4)
