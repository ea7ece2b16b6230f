"""Log-probabilities in batches are those of each row by itself, and windows hold every token once."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm.config import Capacity, Experiment, Moe, TokenizerJson, Train
from jaxlm.config.errors import UsageError
from jaxlm.evaluate import score as scoring
from jaxlm.evaluate.score import batches, score
from jaxlm.evaluate.subject import subject
from jaxlm.evaluate.tokens import after, opening, windows
from jaxlm.tokenizers.build import given
from tests.evaluate.subjects import BLOCK, LENGTH, by_hand, greedy, texts, tiny
from tests.evaluate.subjects import KINDS as SUBJECTS
from tests.tiny import KINDS, random_model
from tests.tokenizers import trained

TOLERANCE = 2e-5


def requests(count, seed=0):
    """Contexts and continuations of many lengths, some longer than the model reads, some alike but for the end."""
    rng = np.random.default_rng(seed)
    lengths = [(1, 1), (1, 40), (60, 4), (60, 5), (90, 30), (5, 64), *rng.integers(1, 30, (count, 2)).tolist()]
    made = [
        (rng.integers(4, 260, a).astype(np.int32), rng.integers(4, 260, b).astype(np.int32)) for a, b in lengths
    ]
    context = made[-1][0]
    return [*made, *((context, np.array([letter], np.int32)) for letter in (65, 66, 67))]


@pytest.mark.parametrize("kind", ["decoder", pytest.param("rwkv7", marks=pytest.mark.nightly)])
def test_every_request_is_what_its_row_alone_gives(kind, monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS", 256)
    monkeypatch.setattr(scoring, "CHUNK", 24)
    subject, asked = tiny(kind), requests(12)
    found = score(subject, asked)
    for (context, continuation), one in zip(asked, found):
        nats, best = by_hand(subject, context, continuation)
        np.testing.assert_allclose(one.nats, nats, atol=TOLERANCE * max(1, np.abs(nats).max()))
        assert one.greedy.tolist() == best.tolist()
        assert one.total == pytest.approx(nats.sum(), abs=len(nats) * TOLERANCE)
        assert one.cut == (len(context) + len(continuation) > LENGTH + 1)
        # Of other tokens it is another.
        wrong, _ = by_hand(subject, context, continuation ^ 1)
        assert np.abs(one.nats - wrong).max() > 100 * TOLERANCE
    assert sum(one.cut for one in found) == 2
    likeliest = [(context, np.array(greedy(subject, context, 1), np.int32)) for context, _ in asked[:3]]
    assert all(one.greedy.all() for one in score(subject, likeliest))


def test_requests_that_differ_in_the_last_token_are_one_row(monkeypatch):
    rows = []
    batch = scoring._batch
    monkeypatch.setattr(
        scoring, "_batch", lambda subject, ids, targets: rows.extend(ids) or batch(subject, ids, targets)
    )
    context = np.arange(10, 20, dtype=np.int32)
    score(tiny(), [(context, np.array([letter], np.int32)) for letter in range(65, 70)])
    assert len(rows) == 1
    # A context of one token less and a continuation of one more end alike, and are scored apart.
    score(tiny(prefixed=True), [(context, np.array([65], np.int32)), (context[:-1], np.array([19, 66], np.int32))])
    assert len(rows) == 3


def test_rows_that_shared_a_capacity_are_scored_apart():
    """Four rows share room for half of what they choose: a subject drops none, and says so."""
    experts = Moe(experts=4, top_k=2, width=16, dispatch=Capacity(0.5, rows=4))
    kind = dataclasses.replace(SUBJECTS["decoder"], layers=1, block=dataclasses.replace(BLOCK, mlp=experts))
    ids = np.random.default_rng(0).integers(4, 260, (4, 14)).astype(np.int32)
    asked = [(row[:6], row[6:]) for row in ids]
    shared = dataclasses.replace(tiny(), model=random_model(kind))
    ours = subject(shared.model, shared.tokenizer, shared.call, Experiment("one", kind, train=Train(length=LENGTH)))
    (note,) = ours.notes
    assert "4 rows shared" in note
    for one, differs in ((ours, False), (shared, True)):
        together = [each.nats for each in score(one, asked)]
        alone = [score(one, [each])[0].nats for each in asked]
        gap = max(np.abs(a - b).max() for a, b in zip(together, alone))
        assert (gap > 100 * TOLERANCE) if differs else (gap < TOLERANCE)
    # A capacity of a row's own stays: it depends on no other row.
    own = dataclasses.replace(experts, dispatch=Capacity(0.5))
    kind = dataclasses.replace(kind, block=dataclasses.replace(BLOCK, mlp=own))
    model = random_model(kind)
    kept = subject(model, shared.tokenizer, shared.call, Experiment("one", kind))
    assert jax.tree.structure(kept.model) == jax.tree.structure(model)
    assert kept.notes == ()


def test_a_prefix_is_seen_from_both_sides():
    context, continuation = np.arange(10, 30, dtype=np.int32), np.array([77, 78], np.int32)
    causal, both = (score(tiny(prefixed=one), [(context, continuation)])[0].nats for one in (False, True))
    assert np.abs(causal - both).max() > 1e-2
    # What is scored is not seen: the first token's score does not depend on the second.
    other = score(tiny(prefixed=True), [(context, np.array([77, 90], np.int32))])[0].nats
    assert other[0] == pytest.approx(both[0], abs=1e-5)
    assert abs(other[1] - both[1]) > 1e-3


def test_batches_hold_rows_of_one_width():
    lengths = [3, 500, 17, 16, 1, 33, 400, 90]
    found = list(batches(lengths, 512))
    assert sorted(index for each in found for index in each) == list(range(8))
    assert found[0] == [1, 6]
    assert [3, 0, 4] in found


@pytest.mark.parametrize(
    ("context", "continuation", "said"),
    [([5], [], "a text of 0 tokens"), ([5], [7] * (LENGTH + 1), "a text of 65 tokens"), ([], [7], "after 0")],
)
def test_what_cannot_be_scored(context, continuation, said):
    with pytest.raises(UsageError, match=said):
        score(tiny(), [(np.array(context, np.int32), np.array(continuation, np.int32))])


def test_an_encoder_is_refused_by_name():
    for name, said in (("encoder", "an encoder gives"), ("encoder_decoder", "an encoder-decoder gives")):
        subject = dataclasses.replace(tiny(), model=random_model(KINDS[name]))
        with pytest.raises(UsageError, match=said):
            score(subject, [(np.array([5], np.int32), np.array([6], np.int32))])


@pytest.mark.parametrize(("count", "length"), [(1, 4), (4, 4), (5, 4), (7, 4), (8, 4), (9, 4), (23, 8), (3, 1)])
def test_windows_are_those_of_the_library(count, length):
    """Each token once; the last window reaches back to be full."""
    ids = np.arange(100, 100 + count, dtype=np.int32)
    found = [(a.tolist(), b.tolist()) for a, b in windows(ids, 2, length)]
    assert [one for _, each in found for one in each] == ids.tolist()
    assert all(len(a) + len(b) <= length + 1 for a, b in found)
    if count > length:
        assert len(found[-1][0]) + len(found[-1][1]) == length + 1
    utils = pytest.importorskip("lm_eval.utils", reason="lm_eval is not installed")
    theirs = [
        utils.make_disjoint_window(one) for one in utils.get_rolling_token_windows(ids.tolist(), 2, length, 1)
    ]
    assert found == [(list(a), list(b)) for a, b in theirs]


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    """Byte-level BPE whose tokens cross from one text into the next."""
    return given(TokenizerJson(str(trained.write("byte_bpe", tmp_path_factory.mktemp("bpe")))))


def test_tokens_across_the_cut(merging):
    """ " the" and "the evening" hold tokens that a cut within them would break."""
    before, (one, _) = after(merging, "and then", [" the evening", " it"])
    assert merging.bytes_of([*before, *one]).decode() == "and then the evening"
    assert np.concatenate([before[1:], one]).tolist() == merging.encode("and then the evening").tolist()
    assert before.tolist() == opening(merging, "and then").tolist()
    # Cut within a word: what is scored begins before the cut, the same for all continuations.
    before, ids = after(merging, "the lazy do", ["g", "t", "ne"])
    assert merging.encode("the lazy dog").tolist() != [*merging.encode("the lazy do"), *merging.encode("g")]
    for text, each in zip(("g", "t", "ne"), ids):
        assert np.concatenate([before[1:], each]).tolist() == merging.encode("the lazy do" + text).tolist()
    assert len(before) < len(opening(merging, "the lazy do"))


def test_white_space_at_the_end_goes_with_the_continuation(merging):
    before, (ids,) = after(merging, "and then ", ["the"])
    wanted = after(merging, "and then", [" the"])
    assert before.tolist() == wanted[0].tolist()
    assert ids.tolist() == wanted[1][0].tolist()
    with pytest.raises(UsageError, match="has no token of its own"):
        after(merging, "and then", [""])


def test_texts_of_bytes():
    for text in texts(5):
        before, (ids,) = after(tiny().tokenizer, "", [text])
        assert before.tolist() == [2]
        assert ids.tolist() == [byte + 4 for byte in text.encode()]
