import numpy as np
import pytest

from jaxlm.data import order


def splitmix64(state):
    """The reference algorithm on Python's unbounded integers: (next state, output)."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return state, z ^ (z >> 31)


def test_mix_is_splitmix64():
    values = [0, 1, 2**32, 2**64 - 1, 0x123456789ABCDEF]
    assert order.mix(np.array(values, np.uint64)).tolist() == [splitmix64(value)[1] for value in values]
    # The generator's published first output from seed 1234567.
    assert order.mix(np.array([1234567], np.uint64)).tolist() == [6457827717110365317]


def test_permutation_against_python_integers():
    for count, seed, epoch in [(1, 0, 0), (7, 0, 0), (100, 5, 3), (100, -1, 2**40)]:
        key = splitmix64(splitmix64(seed % 2**64)[1] ^ epoch)[1]
        expected = sorted(range(count), key=lambda i: splitmix64(i ^ key)[1])
        assert order.permutation(count, seed, epoch).tolist() == expected


def test_permutation_is_frozen():
    """A change here changes the data of every run: count order.VERSION up."""
    assert order.VERSION == 1
    assert order.permutation(10, 0, 0).tolist() == GOLDEN[0]
    assert order.permutation(10, 0, 1).tolist() == GOLDEN[1]


GOLDEN = ([0, 9, 1, 6, 3, 5, 4, 2, 8, 7], [8, 3, 0, 1, 5, 2, 7, 4, 9, 6])


def test_epochs_and_seeds_differ_and_are_permutations():
    orders = [order.permutation(1000, seed, epoch) for seed in range(4) for epoch in range(4)]
    for first in range(len(orders)):
        assert sorted(orders[first]) == list(range(1000))
        for second in range(first):
            assert (orders[first] == orders[second]).mean() < 0.02


def test_every_place_is_equally_likely():
    places = np.array([np.flatnonzero(order.permutation(10, seed, 0) == 3)[0] for seed in range(5000)])
    counts = np.bincount(places, minlength=10)
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # chi-squared with 9 degrees of freedom, p = 0.001


def test_arrange_lays_documents_end_to_end():
    lengths = np.array([3, 1, 4, 1, 5])
    epoch = order.arrange(lengths, 0, 2)
    assert epoch.ends.tolist() == np.cumsum([lengths[i] for i in order.permutation(5, 0, 2)]).tolist()
    assert order.arrange(lengths, None, 7).order.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(AttributeError):
        epoch.order = None
