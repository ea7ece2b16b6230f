"""The notation of tables, against loops over heads."""

import numpy as np
import pytest

from jaxlm.families.table import Entry, Part, groups
from jaxlm.interop.rearrange import from_theirs, their_shape, to_theirs

EMBED, HEADS, KV, HEAD = 5, 6, 2, 3
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = (RNG.standard_normal((EMBED, heads, HEAD)) for heads in (HEADS, KV, KV))
NAMES = ("query", "key", "value")


def parts(*axes):
    return tuple(Part(name, one) for name, one in zip(NAMES, axes, strict=True))


def one_after_the_other():
    """Phi-3: all queries, all keys, all values."""
    return np.concatenate([x.transpose(1, 2, 0).reshape(-1, EMBED) for x in (QUERY, KEY, VALUE)])


def by_group():
    """Falcon: the queries of a group, its key, its value."""
    rows = []
    for group in range(KV):
        for head in range(group * HEADS // KV, (group + 1) * HEADS // KV):
            rows.append(QUERY[:, head].T)
        rows += [KEY[:, group].T, VALUE[:, group].T]
    return np.concatenate(rows)


def by_head():
    """GPT-NeoX: the query, key and value of a head."""
    return np.concatenate([x[:, head].T for head in range(KV) for x in (KEY, VALUE, KEY)])


@pytest.mark.parametrize(
    ("entry", "arrays", "wanted"),
    [
        (Entry("", "(+ d) e", parts("e + d", "e + d", "e + d")), (QUERY, KEY, VALUE), one_after_the_other),
        (Entry("", "(k + d) e", parts("e (k +) d", "e k d", "e k d")), (QUERY, KEY, VALUE), by_group),
        (Entry("", "(h + d) e", parts("e h d", "e h d", "e h d")), (KEY, VALUE, KEY), by_head),
    ],
)
def test_queries_keys_and_values_in_one(entry, arrays, wanted):
    got = to_theirs(entry, list(arrays))
    np.testing.assert_array_equal(got, wanted())
    shapes = [one.shape for one in arrays]
    assert their_shape(entry, shapes) == got.shape
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(from_theirs(entry, number, shapes, got), array)


def test_groups():
    assert groups("(h d) e") == [["h", "d"], ["e"]]
    assert groups("e(+ h d)") == [["e"], ["+", "h", "d"]]


def test_a_table_that_does_not_fit_is_told():
    with pytest.raises(ValueError, match=r"query: \(5, 7, 3\) is not e \(k \+\) d"):
        their_shape(
            Entry("", "(k + d) e", parts("e (k +) d", "e k d", "e k d")), [(5, 7, 3), KEY.shape, VALUE.shape]
        )
