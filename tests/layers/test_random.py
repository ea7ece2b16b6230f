"""Randomness keyed by what it is for, and by nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.layers import random
from jaxlm.parallel.layout import single_device

ROWS = jnp.array([7, 3, 100_000, 0])
KEYS = random.row_keys(random.key(0, 5, "model"), ROWS)
X = jnp.ones((4, 50, 20))
ONE = single_device()


def test_dropout_keeps_the_mean_and_the_rate():
    y = np.asarray(random.dropout(X, 0.25, KEYS, ONE))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # 4000 draws: five standard deviations are 0.034.
    assert abs((y == 0).mean() - 0.25) < 0.035


def test_no_key_or_no_rate_is_no_dropout():
    assert random.dropout(X, 0.25, None, ONE) is X
    assert random.dropout(X, 0.0, KEYS, ONE) is X
    assert random.at(None, "anything") is None


def test_a_row_keeps_its_draws_wherever_it_stands():
    whole = random.dropout(X, 0.5, KEYS, ONE)
    order = jnp.array([2, 0])
    np.testing.assert_array_equal(
        random.dropout(X[:2], 0.5, random.row_keys(random.key(0, 5, "model"), ROWS[order]), ONE), whole[order]
    )
    assert len({row.tobytes() for row in np.asarray(whole)}) == 4


def test_more_positions_leave_the_first_ones_as_they_were():
    np.testing.assert_array_equal(
        random.dropout(X, 0.5, KEYS, ONE)[:, :30], random.dropout(X[:, :30], 0.5, KEYS, ONE)
    )


def test_seed_step_site_and_layer_all_count():
    bases = [random.key(*what) for what in [(0, 5, "model"), (1, 5, "model"), (0, 6, "model"), (0, 5, "prepare")]]
    keys = [random.row_keys(base, ROWS[:1]) for base in bases]
    keys += [random.at(keys[0], part) for part in ("attention", "mlp", 0, 1)]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in keys}) == len(keys)


def test_a_traced_number_is_the_same_site():
    traced = jax.jit(lambda n: random.at(KEYS, n))(jnp.int32(3))
    np.testing.assert_array_equal(jax.random.key_data(traced), jax.random.key_data(random.at(KEYS, 3)))
