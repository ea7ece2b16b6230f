"""Several tokens at once: targets by loops over documents, heads as decoders of their own, and what they cost."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.stack import Stack
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.objectives.multi_token import MultiToken
from jaxlm.objectives.prediction import Prediction
from jaxlm.planning.traced import product_flops
from tests.objectives import texts
from tests.objectives.test_corruptions import LENGTHS
from tests.objectives.test_prediction import LARGEST, loss
from tests.tiny import CALL, GLOBAL, SIZES, close, packed_batch, random_model

HEADS = 2
KIND = config.Decoder(**SIZES, layers=3, block=GLOBAL, ahead=HEADS)
OBJECTIVE = build(config.MultiToken(0.5, chunks=5), KIND)
TERMS = {None: "cross_entropy", 0: "ahead_2", 1: "ahead_3"}
"""Number of a further head, None for that of the next token -> term."""
PREPARE = jax.jit(lambda objective, batch: objective.prepare(batch, jax.random.key(0)), static_argnums=0)


# --- targets -----------------------------------------------------------------------------------------------


def by_loops(docs: dict[int, np.ndarray], head: int) -> dict[int, list[tuple[int, int]]]:
    """(Place, the token that so many places on is the target) of each document, of BOS, its text and EOS."""
    whole = {number: [texts.BOS, *text.tolist(), texts.EOS] for number, text in docs.items()}
    return {number: [(i, doc[i + head]) for i in range(len(doc) - head)] for number, doc in whole.items()}


def found(batch, targets, weights) -> dict[int, list[tuple[int, int]]]:
    """The same of a prepared batch."""
    result = {
        number: [] for number in np.unique(np.asarray(batch.documents)[np.asarray(batch.inputs.segments) > 0])
    }
    for row, pos in np.argwhere(np.asarray(weights) > 0):
        place = int(batch.inputs.positions[row, pos])
        result[int(batch.documents[row, pos])].append((place, int(targets[row, pos])))
    return result


@functools.cache
def layouts():
    docs = dict(enumerate(texts.documents(LENGTHS), start=5))
    items = list(docs.items())
    rows = (
        ([[one] for one in items], 40),
        ([[one] for one in items], 64),
        ([items[:3], items[3:6], items[6:]], 96),
        ([items[::-1]], 192),
    )
    return docs, [texts.batch(*one) for one in rows]


@pytest.mark.parametrize("number", range(HEADS))
def test_targets_are_those_of_each_document(number):
    """However documents are packed and padded; a document that ends too early has none."""
    docs, batches = layouts()
    wanted = by_loops(docs, number + 2)
    assert sum(map(len, wanted.values())) == sum(max(n + 2 - (number + 2), 0) for n in LENGTHS)
    for batch in batches:
        after = PREPARE(OBJECTIVE, batch)
        targets, weights = after.extra["ahead"][..., number], after.extra["ahead_weights"][..., number]
        assert found(after, targets, weights) == wanted
        assert OBJECTIVE.weights(after)[f"ahead_{number + 2}"] == sum(map(len, wanted.values()))
        jax.tree.map(np.testing.assert_array_equal, after.replace(extra=batch.extra), batch)
    assert by_loops(docs, number + 3) != wanted, "the control"


def test_a_row_that_cuts_a_document_knows_one_token_more():
    """The target of its last position, which is some heads' target before it."""
    ids = np.arange(30, 40)
    batch = texts.batch([[(0, ids)]], 12)
    cut = jax.tree.map(lambda x: x[:, :6] if x.ndim == 2 else x, batch)
    after = PREPARE(OBJECTIVE, cut)
    for number in range(HEADS):
        places = np.arange(6 - (number + 1))
        wanted = [(int(i), int(ids[i + number + 1])) for i in places]
        got = found(after, after.extra["ahead"][..., number], after.extra["ahead_weights"][..., number])
        assert got == {0: wanted}


def test_a_target_weighs_what_it_weighs_as_the_next_token():
    batch = packed_batch(KIND)
    after = PREPARE(OBJECTIVE, batch)
    weights, segments = np.asarray(batch.weights), np.asarray(batch.inputs.segments)
    for number in range(HEADS):
        wanted = np.zeros_like(weights)
        for row in range(wanted.shape[0]):
            for pos in range(wanted.shape[1] - number - 1):
                if segments[row, pos] and segments[row, pos] == segments[row, pos + number + 1]:
                    wanted[row, pos] = weights[row, pos + number + 1]
        np.testing.assert_array_equal(after.extra["ahead_weights"][..., number], wanted)
        np.testing.assert_allclose(OBJECTIVE.weights(after)[f"ahead_{number + 2}"], wanted.sum())


# --- heads -------------------------------------------------------------------------------------------------


@jax.jit
def logits(model, inputs):
    return model.logits(model(inputs, CALL).hidden, CALL)


@jax.jit
def gradient(model, batch):
    return jax.grad(lambda m: loss(Prediction(chunks=5), m, batch))(model)


def alone(model, number: int | None, trunk: int = -1):
    """A decoder without further heads whose last layer is that of a head; `trunk` layers are before it."""
    layers = model.blocks.layers()
    last = layers[-1] if number is None else model.ahead[number]
    stack = Stack((*layers[:trunk], last), (), (), 0)
    return model.replace(blocks=stack, ahead=(), config=dataclasses.replace(model.config, ahead=0))


def of_head(batch, number: int | None):
    """The batch with a head's targets in place of the next tokens."""
    if number is None:
        return batch
    extra = PREPARE(OBJECTIVE, batch).extra
    return batch.replace(targets=extra["ahead"][..., number], weights=extra["ahead_weights"][..., number])


def by_hand(model, batch, number, **how) -> float:
    """The mean of a head's term: logits whole, float64 log-sum-exp, the head in a model of its own."""
    own = of_head(batch, number)
    scores = np.asarray(logits(alone(model, number, **how), own.inputs), np.float64)
    chosen = np.take_along_axis(scores, np.asarray(own.targets)[..., None], -1)[..., 0]
    weights = np.asarray(own.weights)
    return (weights * (np.log(np.exp(scores).sum(-1)) - chosen)).sum() / weights.sum()


@functools.cache
def trained():
    """((Loss, totals), gradients) of the objective, and the batch before it is prepared."""
    batch = packed_batch(KIND, rows=4)
    after = PREPARE(OBJECTIVE, batch)

    def value(model):
        return loss(OBJECTIVE, model, after), OBJECTIVE.totals(model, after, None, CALL, {})[0]

    return jax.jit(jax.value_and_grad(value, has_aux=True))(random_model(KIND)), batch


def test_each_head_is_a_decoder_of_its_own():
    model, (((value, totals), _), batch) = random_model(KIND), trained()
    weights = OBJECTIVE.weights(PREPARE(OBJECTIVE, batch))
    wanted = {term: by_hand(model, batch, number) for number, term in TERMS.items()}
    assert totals.keys() == weights.keys() == wanted.keys() == OBJECTIVE.coefficients.keys()
    for term, mean in wanted.items():
        np.testing.assert_allclose(totals[term] / weights[term], mean, rtol=1e-6)
    expected = sum(OBJECTIVE.coefficients[term] * mean for term, mean in wanted.items())
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    behind = by_hand(model, batch, 0, trunk=KIND.layers)
    another = by_hand(model.replace(ahead=model.ahead[::-1]), batch, 0)
    for wrong in (behind, another):
        assert abs(wrong / wanted["ahead_2"] - 1) > 1e-4, "the controls"


def test_the_trunk_learns_from_all_heads():
    """Its gradient is the sum of theirs, as is that of what all share; each head's own is of its term alone."""
    model, ((_, gradients), batch) = random_model(KIND), trained()
    parts = []
    for number, term in TERMS.items():
        part = gradient(alone(model, number), of_head(batch, number))
        parts.append(jax.tree.map(lambda g, c=OBJECTIVE.coefficients[term]: c * g, part))

    def total(parts):
        return jax.tree.map(lambda *leaves: sum(leaves), *parts)

    def shared(part):
        return part.replace(blocks=tuple(part.blocks.layers()[: KIND.layers - 1]), ahead=())

    got = shared(gradients).replace(config=parts[0].config)
    close(got, total(map(shared, parts)))
    own = [gradients.blocks.layers()[-1], *gradients.ahead]
    close(tuple(own), tuple(part.blocks.layers()[-1] for part in parts))
    with pytest.raises(AssertionError, match="off by"):
        close(got, shared(parts[0]))
    with pytest.raises(AssertionError, match="off by"):
        close(got, total([*map(shared, parts[:-1]), jax.tree.map(lambda g: g * 1.001, shared(parts[-1]))]))


def test_logits_of_one_head_exist_at_a_time_and_never_whole():
    """Two heads more need less than a chunk of logits more, and no array has half of all logits."""
    vocab, rows, length, chunks = 64 * 1024, 4, 256, 8
    bytes_of_temporaries = []
    for ahead in (0, 2):
        kind = config.Decoder(vocab=vocab, embed=16, layers=1, block=GLOBAL, ahead=ahead)
        objective = build(config.MultiToken(chunks=chunks) if ahead else config.Autoregressive(chunks=chunks), kind)
        model = jax.eval_shape(lambda kind=kind: build_model(kind, jax.random.key(0)))
        batch = jax.eval_shape(lambda o=objective, kind=kind: PREPARE(o, packed_batch(kind, rows, length)))
        step = jax.jit(jax.grad(lambda m, b, o=objective: loss(o, m, b))).lower(model, batch).compile()
        bytes_of_temporaries.append(step.memory_analysis().temp_size_in_bytes)
    sizes = [np.prod([int(d) for d in shape.split(",")]) for shape in LARGEST.findall(step.as_text())]
    logits = rows * length * vocab
    assert max(sizes) <= logits // chunks
    assert bytes_of_temporaries[1] - bytes_of_temporaries[0] < 4 * logits // chunks


# --- what they cost ----------------------------------------------------------------------------------------


def test_the_next_token_does_without_the_others():
    """Ordinary training does not compute them, and moves none of their parameters; nor does generating."""
    plain = dataclasses.replace(KIND, ahead=0, block=KIND.stacked)
    batch, objective = packed_batch(KIND, rows=2), Prediction(chunks=5)

    def products(kind):
        traced = jax.jit(jax.grad(lambda m: loss(objective, m, batch))).trace(random_model(kind))
        return product_flops(traced.jaxpr)

    assert products(KIND) == products(plain)
    unused = gradient(random_model(KIND), batch).ahead
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(unused))
    assert len(random_model(KIND).empty_cache(1, 8, CALL).layers) == 3


def test_a_mixture_is_balanced_in_every_head():
    """Terms of its layers are means over those of the heads too."""
    mixture = config.Block(config.Attention(4, 2, 8), config.Moe(experts=4, top_k=2, width=8))
    kind = config.Decoder(**SIZES, layers=2, block=config.Pattern((GLOBAL,), suffix=(mixture,)), ahead=2)
    objective, batch = build(config.MultiToken(), kind), packed_batch(kind, rows=2)
    assert objective.couples == "row"
    model = random_model(kind)
    after = PREPARE(objective, batch)
    totals, _ = jax.jit(lambda m: objective.totals(m, after, None, CALL, {}))(model)
    terms, weights = jax.jit(lambda m: m(batch.inputs, CALL).terms), objective.weights(after)
    each = [terms(alone(model, number)) for number in TERMS]
    tokens = 3 * np.sum(np.asarray(batch.inputs.segments) > 0)
    assert weights["router_z"] == tokens
    for term in ("load_balance", "router_z", "dropped"):
        np.testing.assert_allclose(totals[term], sum(one[term] for one in each), rtol=1e-5)
    assert build(config.Autoregressive(), kind).weights(batch)["router_z"] == tokens / 3


def test_dropout_of_each_head_is_its_own():
    kind = dataclasses.replace(KIND, dropout=0.5)
    model = random_model(kind)
    model = model.replace(ahead=(model.ahead[0],) * HEADS)
    inputs, trunk = packed_batch(kind, rows=2).inputs, jnp.ones((2, 12, 16))
    keys = jax.random.split(jax.random.key(1), 2)
    one, two = (model.further(trunk, number, inputs, CALL, key=keys).hidden for number in (0, 1))
    assert np.abs(one - two).max() > 0.1
    one, two = (model.further(trunk, number, inputs, CALL).hidden for number in (0, 1))
    np.testing.assert_array_equal(one, two)


def test_build():
    assert build(config.MultiToken(0.25, 3), KIND) == MultiToken(HEADS, 0.25, Prediction(chunks=3))
    assert OBJECTIVE.coefficients == {"cross_entropy": 1.0, "ahead_2": 0.5, "ahead_3": 0.5}
