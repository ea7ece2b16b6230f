"""What a cache holds after uneven rows, padding and reordering."""

import jax.numpy as jnp
import numpy as np

from jaxlm.layers.cache import Block, Cache, Dense


def new(rows, count, value):
    features = jnp.full((rows, count, 1, 2), value, jnp.float32)
    return features, -features, jnp.full((rows, count), int(value)), jnp.ones((rows, count), jnp.int32)


def test_rows_of_unequal_length_grow_from_their_own_ends():
    cache = Dense.empty(2, 5, 1, 2, "float32").append(*new(2, 2, 3.0), jnp.array([0, 2]))
    np.testing.assert_array_equal(cache.view().keys[..., 0, 0], [[3, 3, 0, 0, 0], [0, 0, 3, 3, 0]])
    np.testing.assert_array_equal(cache.view().values[..., 0, 1], [[-3, -3, 0, 0, 0], [0, 0, -3, -3, 0]])
    np.testing.assert_array_equal(cache.positions, [[3, 3, 0, 0, 0], [0, 0, 3, 3, 0]])


def test_padding_is_overwritten_and_the_end_is_the_end():
    keys, values, positions, _segments = new(1, 3, 1.0)
    cache = Dense.empty(1, 4, 1, 2, "float32").append(
        keys, values, positions, jnp.array([[1, 0, 0]]), jnp.array([0])
    )
    cache = cache.append(*new(1, 4, 2.0), jnp.array([1]))
    np.testing.assert_array_equal(cache.view().keys[0, :, 0, 0], [1, 2, 2, 2])
    np.testing.assert_array_equal(cache.segments, [[1, 1, 1, 1]])


def test_lengths_count_tokens_that_are_not_padding():
    cache = Cache((Block(Dense.empty(2, 4, 1, 2, "float32")),), jnp.array([1, 0]))
    after = cache.advance(cache.layers, jnp.array([[1, 1, 0], [2, 0, 0]]))
    np.testing.assert_array_equal(after.lengths, [3, 1])


def test_reorder_moves_everything_of_a_row():
    layer = Dense.empty(3, 2, 1, 2, "float32").append(*new(3, 1, 1.0), jnp.array([0, 1, 0]))
    cache = Cache((Block(layer),), jnp.array([1, 2, 3])).reorder(jnp.array([1, 1, 0]))
    np.testing.assert_array_equal(cache.lengths, [2, 2, 1])
    np.testing.assert_array_equal(cache.layers[0].attention.view().keys[..., 0, 0], [[0, 1], [0, 1], [1, 0]])
