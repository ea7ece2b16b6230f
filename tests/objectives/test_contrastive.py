"""Texts that find their positives: a brute-force loss over pairs, in whatever rows they lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.random import at, row_keys
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.parallel.layout import single_device
from tests.objectives import texts
from tests.objectives.test_classification import batch, loss
from tests.objectives.texts import BOS, EOS, FIRST, SPECIAL, VOCAB
from tests.tiny import close

CALL = Call(single_device(), layers="unroll")
KIND = config.Encoder(
    vocab=VOCAB,
    embed=24,
    layers=1,
    block=config.Block(config.Attention(2, 2, 12), config.Gated(32)),
    position=config.Learned(64),
    head=config.NoHead(),
)
LENGTHS = ((9, 3), (4, 7), (1, 2), (17, 5), (3, 1), (12, 5), (1, 4), (8, 8))
LABELS = (0, 0, 1, 0, 0, 0, 0, 1)


def documents(seed=0):
    draw = np.random.default_rng(seed)
    parts = {n: [draw.integers(FIRST, VOCAB, size) for size in two] for n, two in enumerate(LENGTHS, start=5)}
    whole = {n: np.concatenate([one, [EOS], two]) for n, (one, two) in parts.items()}
    return parts, whole, dict(enumerate(LABELS, start=5))


def layouts(whole):
    docs = list(whole.items())
    yield [[one] for one in docs], 40
    yield [docs[:3], docs[3:6], docs[6:]], 64
    yield [docs[::-1]], 160


def vector(model, text, of):
    """Of one text alone."""
    ids = jnp.asarray([[BOS, *text, EOS]], jnp.int32)
    tokens = Tokens(ids, jnp.ones_like(ids), jnp.arange(ids.shape[1])[None])
    hidden = np.asarray(model(tokens, CALL).hidden[0], np.float64)
    found = {"first": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[of]
    return found / np.linalg.norm(found)


def brute(ones, twos, temperature):
    """(Mean loss, share that finds its own), text by text."""
    nats, hits = [], []
    for i, one in enumerate(ones):
        scores = np.array([one @ two for two in twos]) / temperature
        nats.append(-scores[i] + np.log(np.exp(scores).sum()))
        hits.append(scores.argmax() == i)
    return np.mean(nats), np.mean(hits)


@pytest.mark.parametrize("of", ["first", "mean", "last"])
def test_pairs_in_any_rows(of):
    parts, whole, labels = documents()
    kind = config.Contrastive(of=of, temperature=0.2)
    objective = build(kind, KIND, lambda: SPECIAL)
    model = build_model(KIND, jax.random.key(1))
    used = [parts[n] for n in parts if labels[n] == 0]
    wanted = brute(*([vector(model, two[i], of) for two in used] for i in (0, 1)), 0.2)
    found = [loss(objective, model, batch(*layout, labels)) for layout in layouts(whole)]
    for terms, gradient in found:
        assert float(terms["contrastive"]) == pytest.approx(wanted[0], rel=2e-5)
        assert float(terms["accuracy"]) == pytest.approx(wanted[1], abs=1e-6)
        assert float(terms["left_out"]) == 0
        close(gradient, found[0][1])
    wrong = brute(*([vector(model, two[i], of) for two in used] for i in (1, 0)), 0.2)
    assert abs(wrong[0] / wanted[0] - 1) > 1e-3, "the control: from the second to the first"


def test_each_text_stands_between_its_own_tokens():
    parts, whole, labels = documents()
    rows = batch(*list(layouts(whole))[1], labels)
    after = build(config.Contrastive(), KIND, lambda: SPECIAL).prepare(rows, jax.random.key(0))
    found = {}
    for row in range(3):
        segments = np.asarray(after.inputs.segments[row])
        for segment in set(segments[segments > 0].tolist()):
            there = segments == segment
            number = int(after.documents[row][there][0])
            ids = after.inputs.ids[row][there].tolist()
            assert after.inputs.positions[row][there].tolist() == list(range(len(ids)))
            found[number, (segment - 1) % 2] = ids
    wanted = {(n, i): [BOS, *two[i], EOS] for n, two in parts.items() if labels[n] == 0 for i in (0, 1)}
    assert found == wanted


def test_a_batch_of_wrong_pairs_teaches_nothing():
    _, whole, labels = documents()
    objective = build(config.Contrastive(), KIND, lambda: SPECIAL)
    rows = batch([list(whole.items())], 160, dict.fromkeys(labels, 1))
    terms, gradient = loss(objective, build_model(KIND, jax.random.key(1)), rows)
    assert terms == {"contrastive": 0.0, "accuracy": 0.0, "left_out": 0.0}
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_texts_that_are_all_alike_find_none():
    _, whole, labels = documents()
    objective = build(config.Contrastive(), KIND, lambda: SPECIAL)
    model = jax.tree.map(jnp.zeros_like, build_model(KIND, jax.random.key(1)))
    terms, _ = loss(objective, model, batch([list(whole.items())], 160, labels))
    assert terms["accuracy"] == 0
    assert terms["contrastive"] == pytest.approx(np.log(LABELS.count(0)), rel=1e-6)


def test_what_a_row_has_no_room_for_is_counted():
    parts, whole, labels = documents()
    kind = config.Contrastive(most=3, temperature=0.2)
    objective = build(kind, KIND, lambda: SPECIAL)
    model = build_model(KIND, jax.random.key(1))
    terms, _ = loss(objective, model, batch([list(whole.items())], 160, labels))
    used = [parts[n] for n in (5, 6)]  # the third is of another label
    wanted = brute(*([vector(model, two[i], "mean") for two in used] for i in (0, 1)), 0.2)
    assert float(terms["contrastive"]) == pytest.approx(wanted[0], rel=2e-5)
    assert float(terms["left_out"]) == pytest.approx(4 / 6)


def test_another_dropout():
    """Without dropout each text is its own positive; with it, two passes differ, and depend on rows' keys."""
    _, whole, _ = documents()
    kind = dataclasses.replace(KIND, dropout=0.2)
    objective = build(config.Contrastive("dropout", temperature=0.2), kind, lambda: SPECIAL)
    model = build_model(kind, jax.random.key(1))
    rows = texts.batch([list(whole.items())[:4], list(whole.items())[4:]], 96)
    terms, _ = loss(objective, model, rows)
    vectors = [vector(model, text, "mean") for text in whole.values()]
    assert float(terms["contrastive"]) == pytest.approx(brute(vectors, vectors, 0.2)[0], rel=2e-5)
    after = objective.prepare(rows, jax.random.key(0))
    drawn = [
        float(objective.totals(model, after, jax.random.key(n), CALL, {})[0]["contrastive"]) for n in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    ones, twos = (passed(model, rows, jax.random.key(1), name) for name in ("first", "second"))
    wanted = brute(ones, twos, 0.2)[0] * len(whole)
    assert drawn[0] == pytest.approx(wanted, rel=2e-5)
    assert abs(brute(ones, ones, 0.2)[0] * len(whole) / wanted - 1) > 1e-2, "the control: one dropout for both"


def passed(model, rows, key, name):
    """A vector of each text of rows, in a pass of this name."""
    keys = at(row_keys(key, rows.rows), f"contrastive.{name}")
    hidden = np.asarray(model(rows.inputs, CALL, key=keys).hidden, np.float64)
    segments = np.asarray(rows.inputs.segments)
    places = [(row, one) for row in range(len(segments)) for one in range(1, segments[row].max() + 1)]
    means = [hidden[row][segments[row] == one].mean(0) for row, one in places]
    return [mean / np.linalg.norm(mean) for mean in means]


def test_mixtures_are_refused():
    mixture = dataclasses.replace(KIND, block=config.Block(config.Attention(2, 2, 12), config.Moe()))
    with pytest.raises(UsageError, match="Contrastive does not balance the experts"):
        build(config.Contrastive(), mixture, lambda: SPECIAL)
