"""What objectives make of rows: nothing is lost, packing changes nothing, and draws are what papers say."""

import collections
import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.special import Special
from jaxlm.objectives.build import build
from tests.objectives import texts
from tests.objectives.texts import BOS, EOS, FIRST, KINDS, MASK, SENTINELS, SPECIAL, VOCAB

LENGTHS = (9, 1, 17, 4, 2, 30, 0, 12)
SENTINEL = range(texts.FIRST_SENTINEL, texts.FIRST_SENTINEL + SENTINELS)


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def test_packing_and_padding_change_nothing(name):
    """A document becomes the same alone, among others, in long rows and short ones."""
    docs = list(enumerate(texts.documents(LENGTHS), start=5))
    layouts = [
        ([[one] for one in docs], 40),
        ([[one] for one in docs], 64),
        ([docs[:3], docs[3:6], docs[6:]], 96),
        ([docs[::-1]], 192),
    ]
    found = []
    for rows, length in layouts:
        before = texts.batch(rows, length)
        found.append(texts.by_document(before, texts.prepared(name, before)))
    for other in found[1:]:
        assert other == found[0]
    before = texts.batch(*layouts[2])
    assert texts.by_document(before, texts.prepared(name, before, seed=1)) != found[0], (
        "another key draws otherwise"
    )


def restored(source, targets):
    """The text of a source with sentinels and the targets that say what they stand for."""
    spans, current = {}, None
    for token in targets:
        if token in SENTINEL:
            current = spans.setdefault(token, [])
        elif token != EOS:
            current.append(token)
    assert list(spans) == [token for token in source if token in SENTINEL] == list(SENTINEL)[: len(spans)]
    return [word for token in source if token != EOS for word in spans.get(token, [token])]


def test_spans_and_what_stands_for_them_are_the_text():
    docs = dict(enumerate(texts.documents(LENGTHS)))
    before = texts.batch([list(docs.items())], 192)
    for seed in range(5):
        for number, found in texts.by_document(before, texts.prepared("span_corruption", before, seed)).items():
            source, inputs, targets, weights = found
            text = docs[number].tolist()
            if len(text) < 2:
                assert (source, targets) == ([], [])
                continue
            assert restored(source, targets) == text
            assert source[-1] == targets[-1] == EOS
            assert inputs == [BOS, *targets[:-1]]
            assert set(weights) == {1.0}
            hidden = sum(token >= FIRST for token in targets)
            assert hidden == max(1, min(round(0.3 * len(text)), len(text) - 1))
            assert source[0] not in SENTINEL, "the first words are kept"
            assert source[-2] in SENTINEL, "the last are hidden"


def test_a_mixture_tells_which_it_is():
    docs = dict(enumerate(texts.documents([40] * 60)))
    before = texts.batch([[one] for one in docs.items()], 48)
    modes = collections.Counter()
    for number, (source, _, targets, _) in texts.by_document(before, texts.prepared("ul2", before)).items():
        mode, text = source[0], docs[number].tolist()
        modes[mode] += 1
        if mode == texts.NAMED["[S]"]:
            assert source[1:-1] + targets[:-1] == text
        else:
            assert restored(source[1:], targets) == text
    assert modes.keys() == {20, 21, 22}
    assert modes[21] > modes[20] > modes[22], "four of seven, two, one"


def test_a_prefix_is_followed_by_its_rest():
    docs = dict(enumerate(texts.documents([12] * 800)))
    before = texts.batch([[one] for one in docs.items()], 16)
    ends = collections.Counter()
    for number, (source, _, targets, _) in texts.by_document(before, texts.prepared("prefix_lm", before)).items():
        assert source[:-1] + targets[:-1] == docs[number].tolist()
        assert source[-1] == targets[-1] == EOS
        ends[len(source) - 1] += 1
    assert set(ends) == set(range(1, 12))
    assert stats.chisquare(list(ends.values())).pvalue > 1e-3, "all places alike"


def test_what_follows_a_prefix_is_predicted():
    docs = dict(enumerate(texts.documents([12] * 800 + [1, 0, 2])))
    before = texts.batch([[one] for one in docs.items()], 16)
    ends = collections.Counter()
    for number, found in texts.by_document(before, texts.prepared("prefix_decoder", before)).items():
        _, inputs, targets, weights, ends_at = found
        assert inputs == [BOS, *docs[number], EOS]
        assert targets[:-1] == inputs[1:]
        (end,) = set(ends_at)
        words = len(docs[number])
        if words < 2:
            assert set(weights) == {0.0}, "no place to cut"
            continue
        assert weights == [0.0] * (end - 1) + [1.0] * (words + 2 - end) + [0.0], "the last of a prefix predicts"
        if words == 12:
            ends[end - 1] += 1
    assert set(ends) == set(range(1, 12)), "BOS and one word to all but one"
    assert stats.chisquare(list(ends.values())).pvalue > 1e-3, "all places alike"


def test_a_prefix_of_a_piece_begins_with_the_piece():
    """Positions go on where a document does; what the next row has of it is predicted from this one's end."""
    before = texts.batch([list(enumerate(texts.documents([30])))], 32)
    cut = jax.tree.map(lambda x: x[:, 9:-5] if x.ndim == 2 else x, before)
    after = texts.prepared("prefix_decoder", cut)
    (end,) = set(np.asarray(after.inputs.prefix)[0].tolist())
    assert 10 <= end < 9 + 18
    np.testing.assert_array_equal(np.asarray(after.weights)[0], np.arange(9, 27) >= end - 1)


def test_an_end_that_the_row_cuts_off_is_none():
    before = texts.batch([list(enumerate(texts.documents([30])))], 32)
    cut = jax.tree.map(lambda x: x[:, 1:-1] if x.ndim == 2 else x, before)
    after = texts.prepared("prefix_lm", cut)
    assert EOS not in np.asarray(after.targets)[np.asarray(after.weights) > 0]
    after = texts.prepared("infilling", cut)
    np.testing.assert_array_equal(np.asarray(after.targets)[0], np.asarray(cut.inputs.ids)[0])
    assert float(after.extra["left_out"].sum()) == 0


def test_what_has_no_room_is_left_out_and_counted():
    docs = list(enumerate(texts.documents([20, 20, 20])))
    kind = config.SpanCorruption(0.5, 2.0, SENTINELS, target_length=34)
    before = texts.batch([docs], 66)
    after = jax.jit(build(kind, texts.TWO_SIDED, lambda: SPECIAL).prepare)(before, jax.random.key(0))
    assert after.targets.shape == (1, 34)
    found = texts.by_document(before, after)
    assert [len(found[number][2]) for number, _ in docs] == [16, 16, 0], "ten words, five sentinels and the end"
    assert float(after.extra["left_out"].sum()) == 1
    assert float(after.extra["pieces"].sum()) == 3


def test_gaps_stand_for_text_of_any_length():
    docs = dict(enumerate(texts.documents([20] * 400)))
    before = texts.batch([[one] for one in docs.items()], 24)
    masks, kept = [], []
    for number, (source, inputs, targets, _) in texts.by_document(
        before, texts.prepared("infilling", before)
    ).items():
        text = docs[number].tolist()
        assert targets == [*text, EOS]
        assert inputs == [BOS, *text]
        words = [token for token in source if token >= FIRST]
        assert len(words) == 14, "30 % are hidden"
        rest = iter(text)
        assert all(word in rest for word in words), "in their order"
        masks.append(source.count(MASK))
        kept.append(tuple(token == MASK for token in source))
    # Spans of Poisson(3) until six words are hidden.
    draw = np.random.default_rng(0)
    expected = [np.searchsorted(np.cumsum(draw.poisson(3.0, 20)), 6) + 1 for _ in range(20_000)]
    assert abs(np.mean(masks) - np.mean(expected)) < 4 * np.std(expected) / math.sqrt(len(masks))
    firsts = np.mean([one[0] for one in kept])
    shares = np.mean([count / (14 + count) for count in masks])
    assert abs(firsts - shares) < 4 * math.sqrt(shares / len(masks)), "a gap is as likely in front as anywhere"


def test_the_middle_comes_last():
    prefix, middle, suffix = (texts.NAMED[f"<fim_{part}>"] for part in ("prefix", "middle", "suffix"))
    docs = dict(enumerate(texts.documents([9] * 400)))
    before = texts.batch([[one] for one in docs.items()], 64)
    orders, empty = collections.Counter(), 0
    found = texts.by_document(before, texts.prepared("fill_in_the_middle", before))
    for number, (_, inputs, targets, weights) in found.items():
        text = docs[number].tolist()
        assert (inputs[0], inputs[-1]) == (BOS, EOS)
        assert targets[:-1] == inputs[1:]
        assert weights == [1.0] * (len(inputs) - 1) + [0.0]
        inner = inputs[1:-1]
        order = tuple(token for token in inner if token < FIRST)
        orders[order] += 1
        if order == ():
            assert inner == text
            continue
        parts = [[]]
        for token in inner:
            parts += [[]] if token < FIRST else []
            parts[-1] += [token] if token >= FIRST else []
        first, second, third = parts[1:]
        assert first + third + second == text
        empty += not first
    assert orders[()] == pytest.approx(0.3 * 400, abs=40)
    assert set(orders) == {(), (prefix, suffix, middle)}
    # Suffix first has nothing behind <fim_prefix>; in the other order the prefix is empty as often as the first of
    # two cuts in ten places is 0.
    share = 0.5 + 0.5 * (1 - (9 / 10) ** 2)
    assert empty == pytest.approx(share * (400 - orders[()]), abs=40)


def masks_of_t5(length: int, hidden: int, spans: int) -> list[tuple[bool, ...]]:
    """Every mask of a text: kept and hidden words cut into as many parts each, which alternate."""

    def parts(items):
        for cuts in itertools.combinations(range(1, items), spans - 1):
            yield [b - a for a, b in itertools.pairwise((0, *cuts, items))]

    found = []
    for kept, gone in itertools.product(parts(length - hidden), parts(hidden)):
        found.append(tuple(x for a, b in zip(kept, gone) for x in [False] * a + [True] * b))
    return found


def test_spans_are_drawn_as_by_t5():
    """All ways to cut are equally likely: chi-square over every mask of eleven words, five hidden in two spans."""
    wanted = masks_of_t5(11, 5, 2)
    assert len(set(wanted)) == len(wanted) == 20
    docs = texts.documents([11] * 6000)
    before = texts.batch([[(number, text)] for number, text in enumerate(docs)], 13)
    kind = config.SpanCorruption(0.45, 2.4, SENTINELS)
    after = jax.jit(build(kind, texts.TWO_SIDED, lambda: SPECIAL).prepare)(before, jax.random.key(3))
    counts = collections.Counter()
    for source in np.asarray(after.source.ids):
        sentinel = [i for i, token in enumerate(source) if token in SENTINEL]
        assert len(sentinel) == 2
        counts[tuple(sentinel)] += 1
    # A source tells where the kept words are cut, not the hidden ones: four masks each.
    assert len(counts) == 5
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    lengths = collections.Counter()
    for target in np.asarray(after.targets):
        lengths[[i for i, token in enumerate(target) if token in SENTINEL][1]] += 1
    assert len(lengths) == 4
    assert stats.chisquare(list(lengths.values())).pvalue > 1e-3


# --- masks -------------------------------------------------------------------------------------------------


def drawn(kind: config.MaskedLm, before, seed=0):
    objective = build(kind, texts.ENCODER, lambda: SPECIAL)
    return jax.jit(objective.prepare)(before, jax.random.key(seed))


MANY = [[(number, text)] for number, text in enumerate(texts.documents([30] * 1000, seed=1))]


def test_rates_are_those_of_bert():
    """80/10/10 of 15 %: chi-square over all words, and random tokens alike among those that are not special."""
    before = texts.batch(MANY, 32)
    after = drawn(config.MaskedLm(), before)
    ids, shown, chosen = (np.asarray(x) for x in (before.inputs.ids, after.inputs.ids, after.weights > 0))
    words = ids >= FIRST
    np.testing.assert_array_equal(after.targets, ids)
    assert not chosen[~words].any()
    np.testing.assert_array_equal(shown[~chosen], ids[~chosen])
    total, ordinary = words.sum(), VOCAB - len(SPECIAL.ids)
    same = 0.15 * (0.1 + 0.1 / ordinary)
    expected = np.array([0.85, 0.15 * 0.8, 0.15 * 0.1 * (1 - 1 / ordinary), same]) * total
    masked = chosen & (shown == MASK)
    observed = [words.sum() - chosen.sum(), masked.sum(), (chosen & ~masked & (shown != ids)).sum()]
    observed.append(total - sum(observed))
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert stats.chisquare(observed, np.array([0.85, 0.15, 0, 0]) * total + 1e-9).pvalue < 1e-9, "the control"
    others = collections.Counter(shown[chosen & (shown != MASK) & (shown != ids)].tolist())
    assert not set(others) & set(SPECIAL.ids)
    assert len(others) == ordinary
    # Any but the token itself, which is one of text.
    text = np.array([others[token] for token in range(FIRST, VOCAB)])
    assert stats.chisquare(text).pvalue > 1e-3


def test_words_are_hidden_whole():
    before = texts.batch(MANY, 32)
    after = drawn(config.MaskedLm(0.15, unit="word"), before)
    chosen, words = np.asarray(after.weights) > 0, np.asarray(before.inputs.ids) >= FIRST
    units = np.asarray(before.extra["words"])
    for row in range(50):
        for unit in set(units[row][words[row]]):
            of_unit = chosen[row][words[row] & (units[row] == unit)]
            assert of_unit.all() or not of_unit.any()
    assert chosen[words].mean() == pytest.approx(0.15, abs=0.01)


def test_masks_that_are_drawn_once():
    """The step's key does not change them, another id of a document does."""
    kind = config.MaskedLm(0.3, copies=2)
    before = texts.batch(MANY[:20], 32)
    one, other = (np.asarray(drawn(kind, before, seed).inputs.ids) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert (np.asarray(drawn(kind, before.replace(documents=before.documents + 20)).inputs.ids) != one).any()
    kind = config.MaskedLm(0.3)
    one, other = (np.asarray(drawn(kind, before, seed).inputs.ids) for seed in (0, 1))
    assert (one != other).any()


# --- wrong requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("masked_lm", "masked_lm needs a mask token"),
        ("replaced_tokens", "replaced_tokens needs a mask token"),
        ("infilling", "infilling needs a mask token"),
        ("span_corruption", "span_corruption needs 8 sentinel tokens .* has 0"),
        ("ul2", r"ul2 needs the special tokens \[R\]"),
        ("fill_in_the_middle", "fill_in_the_middle needs the special tokens <fim_prefix>, <fim_middle>"),
    ],
)
def test_a_vocabulary_that_lacks_what_is_needed(name, message):
    kind, model = KINDS[name]
    with pytest.raises(UsageError, match=message):
        build(kind, model, lambda: Special(99, 0, 1, 2))
    with pytest.raises(UsageError, match="there is no tokenizer"):
        build(kind, model)
