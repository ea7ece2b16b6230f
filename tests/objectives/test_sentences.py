"""Sentences that change places: against a plain program, and all orders alike."""

import collections
import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from jaxlm.objectives.pieces import Pieces
from jaxlm.objectives.sentences import permuted
from tests.objectives import texts
from tests.objectives.texts import BOS, ENDS, EOS, FIRST, SPECIAL

END, WORD = FIRST, FIRST + 20


def sentences(text, ends=ENDS) -> list[list[int]]:
    """By a loop over words: a sentence ends behind an end that follows none."""
    found = [[]]
    for i, word in enumerate(text):
        found[-1].append(word)
        if word in ends and not (i and text[i - 1] in ends):
            found.append([])
    return [one for one in found if one]


def orders(text, share: float) -> set[tuple[int, ...]]:
    """Every text that may come of one: so many sentences among the places that they leave, in any order."""
    parts = sentences(text)
    chosen = math.ceil(share * len(parts))
    found = set()
    for which in itertools.combinations(range(len(parts)), chosen):
        for order in itertools.permutations(which):
            moved = dict(zip(which, order))
            found.add(tuple(word for i in range(len(parts)) for word in parts[moved.get(i, i)]))
    return found


@jax.jit(static_argnames="share")
def drawn(batch, key, share):
    """The words of each row, and the order in which they stand."""
    pieces = Pieces.of(batch, SPECIAL.ids)
    order = permuted(pieces, batch.extra["ends"], share, key)
    return pieces.word, order, pieces.look_up(pieces.by_number(order, pieces.ids, pieces.word), pieces.index)


def moved(rows, length, share, seed=0):
    """Document -> what its words became."""
    batch = texts.batch(rows, length)
    word, _, after = (np.asarray(x) for x in drawn(batch, jax.random.key(seed), share))
    numbers = np.asarray(batch.documents)
    found = collections.defaultdict(tuple)
    for row, place in np.argwhere(word):
        found[int(numbers[row, place])] += (int(after[row, place]),)
    return found


def some(count: int) -> dict[int, np.ndarray]:
    """Texts of up to twelve words, a third of them ends, with runs of ends, at the beginning and at the end too."""
    draw = np.random.default_rng(1)
    made = {}
    for number in range(count):
        size = draw.integers(0, 13)
        made[number] = np.where(
            draw.random(size) < 0.35, draw.integers(FIRST, FIRST + 8, size), 40 + np.arange(size)
        )
    return made


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_every_order_is_one_of_those_counted_out(share):
    """Packed and alone; words in their reverse order, the control, are none of them."""
    docs = some(120)
    packed = [list(docs.items())[i : i + 10] for i in range(0, 120, 10)]
    found, changes = moved(packed, 160, share), 0
    assert found == moved([[one] for one in docs.items()], 16, share)
    for number, text in docs.items():
        assert found[number] in orders(text.tolist(), share) or not len(text)
        changes += found[number] != tuple(text)
    assert changes >= {0.1: 0, 0.5: 20, 1.0: 40}[share]
    assert (changes == 0) == (share == 0.1), "one sentence by itself stays"
    wrong = sum(found[n][::-1] not in orders(text.tolist(), share) for n, text in docs.items() if len(text) > 3)
    assert wrong > 80, "the control"


def test_what_a_sentence_is():
    a, b, c, d = range(WORD, WORD + 4)
    assert sentences([a, END, b, c, END, d]) == [[a, END], [b, c, END], [d]]
    assert sentences([a, END, END, END, b]) == [[a, END], [END, END, b]]
    assert sentences([END, a, END]) == [[END], [a, END]]


FOUR = [WORD, END, WORD + 1, WORD + 1, END, WORD + 2, WORD + 2, WORD + 2, END, WORD + 3]
"""Four sentences, the last without an end."""


@pytest.mark.parametrize(("share", "ways"), [(1.0, 24), (0.7, 0), (0.5, 0)])
def test_all_orders_are_alike(share, ways):
    """Chi-square; of a share of sentences, those that stay count for every choice that leaves them."""
    count = 6000
    found = moved([[(n, np.array(FOUR))] for n in range(count)], 12, share)
    parts = [tuple(one) for one in sentences(FOUR)]
    chosen = math.ceil(share * 4)
    expected = collections.Counter()
    for which in itertools.combinations(range(4), chosen):
        for order in itertools.permutations(which):
            put = dict(zip(which, order))
            expected[tuple(word for i in range(4) for word in parts[put.get(i, i)])] += 1
    got = collections.Counter(found.values())
    assert got.keys() == expected.keys()
    assert not ways or len(got) == ways
    total = sum(expected.values())
    sizes = [[counter[order] for order in expected] for counter in (got, expected)]
    assert stats.chisquare(sizes[0], np.array(sizes[1]) * count / total).pvalue > 1e-3
    shifted = np.array(sizes[1], float)
    shifted[0] *= 2
    wrong = stats.chisquare(sizes[0], shifted * count / shifted.sum()).pvalue
    assert wrong < 1e-3, "the control: one order twice as likely"


def test_the_encoder_reads_another_order_and_the_decoder_writes_the_first():
    """With hardly a word hidden, what is read is an order of the sentences; not without permutation."""
    kind, model = texts.KINDS["permuted"]
    batch = texts.batch([[(n, np.array(FOUR))] for n in range(200)], 12)
    whole = orders(FOUR, 1.0)
    for share, least in ((1.0, 12), (0.0, 1)):
        objective = texts.build(dataclasses.replace(kind, rate=0.01, permuted=share), model, lambda: SPECIAL)
        after = jax.jit(objective.prepare)(batch, jax.random.key(2))
        read = {tuple(row[row >= FIRST].tolist()) for row in np.asarray(after.source.ids)}
        assert read <= whole
        assert least <= len(read) <= (24 if share else 1)
        wanted = np.array([*FOUR, EOS])
        assert (np.asarray(after.targets)[:, :11] == wanted).all()
        assert (np.asarray(after.inputs.ids)[:, :11] == [BOS, *FOUR]).all()


def test_draws_know_their_sentence_alone():
    """The same words with other lengths of sentences: the same order of sentences."""
    short, long = (
        [WORD, END, WORD + 1, END, WORD + 2, END],
        [WORD, WORD, END, WORD + 1, END, WORD + 2, WORD + 2, END],
    )

    def order(text):
        found = moved([[(n, np.array(text))] for n in range(50)], 12, 1.0)
        return [[word for word in dict.fromkeys(found[n]) if word != END] for n in range(50)]

    assert order(short) == order(long)
    assert len({tuple(one) for one in order(short)}) == 6
