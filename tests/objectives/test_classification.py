"""Labels of texts and of pairs: the losses of another library, in whatever rows texts lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.contracts import Call
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.objectives.classification import ends_before
from jaxlm.parallel.layout import single_device
from tests.objectives import texts
from tests.objectives.texts import EOS, FIRST, SPECIAL, VOCAB
from tests.tiny import close

CALL = Call(single_device(), layers="unroll")
SIZES = dict(vocab=VOCAB, embed=24, layers=1, block=config.Block(config.Attention(2, 2, 12), config.Gated(32)))
MODELS = {
    "first": config.Encoder(**SIZES, types=2, classifier=config.Classifier(4, "first")),
    "mean": config.Encoder(**SIZES, types=2, classifier=config.Classifier(4, "mean", "none")),
    "last": config.Decoder(**SIZES, classifier=config.Classifier(4, "last", "gelu")),
}
LENGTHS = ((9,), (4, 7), (1, 2), (17,), (3, 0), (12, 5), (1,), (8, 8))
LABELS = (3, 0, 1, 1, 2, 0, 3, 2)


def documents(seed=0):
    """Texts and pairs of random tokens, each pair with its end between, by number; and their labels."""
    draw = np.random.default_rng(seed)
    parts = [[draw.integers(FIRST, VOCAB, n) for n in lengths] for lengths in LENGTHS]
    whole = [np.concatenate([one[0], *(np.r_[EOS, other] for other in one[1:])]) for one in parts]
    return dict(enumerate(whole, start=5)), dict(enumerate(LABELS, start=5))


def batch(rows, length, labels):
    """Rows of documents with the label at the first token of each."""
    found = texts.batch(rows, length)
    heads = np.asarray((found.inputs.positions == 0) & (found.inputs.segments > 0))
    told = np.vectorize(labels.get)(np.asarray(found.documents), -1)
    return found.replace(extra=found.extra | {"labels": jnp.asarray(np.where(heads, told, -1), jnp.int32)})


def layouts(docs):
    docs = list(docs.items())
    yield [[one] for one in docs], 40
    yield [docs[:3], docs[3:6], docs[6:]], 64
    yield [docs[::-1]], 160


def loss(objective, model, rows, key=0):
    """(Terms, their gradient), of one batch."""

    def value(model):
        after = objective.prepare(rows, jax.random.key(key))
        totals, _ = objective.totals(model, after, None, CALL, {})
        weights = objective.weights(after)
        terms = {name: totals[name] / weights[name] for name in totals}
        return sum(objective.coefficients[name] * term for name, term in terms.items()), terms

    (_, terms), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(model)
    return {term: float(value) for term, value in terms.items()}, gradient


def alike(one, other):
    """Terms and gradients."""
    assert one[0] == pytest.approx(other[0], rel=5e-6)
    close(one[1], other[1])


@pytest.mark.parametrize("name", MODELS)
def test_packing_and_padding_change_nothing(name):
    docs, labels = documents()
    objective = build(config.Classification(), MODELS[name], lambda: SPECIAL)
    model = build_model(MODELS[name], jax.random.key(1))
    found = [loss(objective, model, batch(*layout, labels)) for layout in layouts(docs)]
    for other in found[1:]:
        alike(other, found[0])
    turned = {number: 3 - label for number, label in labels.items()}
    control = loss(objective, model, batch([[one] for one in docs.items()], 40, turned))
    assert abs(float(control[0]["classification"] - found[0][0]["classification"])) > 1e-3


def test_hidden_tokens_and_pairs_in_any_rows():
    docs, labels = documents()
    pairs = {number: label % 2 for number, label in labels.items()}
    kind = dataclasses.replace(MODELS["first"], classifier=config.Classifier())
    objective = build(config.NextSentence(config.MaskedLm(0.4, chunks=2)), kind, lambda: SPECIAL)
    model = build_model(kind, jax.random.key(1))
    found = [loss(objective, model, batch(*layout, pairs)) for layout in layouts(docs)]
    assert set(found[0][0]) == {"masked_lm", "accuracy", "next_sentence", "next_sentence_accuracy"}
    for other in found[1:]:
        alike(other, found[0])
    apart = loss(objective, model, batch([[one] for one in docs.items()], 40, pairs), key=1)
    assert float(apart[0]["masked_lm"]) != float(found[0][0]["masked_lm"]), "another key hides others"
    assert float(apart[0]["masked_lm"]) > 0


def test_terms_are_those_of_its_parts():
    """One pass gives the masked loss and the labels' loss of two."""
    docs, labels = documents()
    rows = batch([[one] for one in docs.items()], 40, {n: label % 2 for n, label in labels.items()})
    kind = dataclasses.replace(MODELS["first"], classifier=config.Classifier())
    model = build_model(kind, jax.random.key(1))
    both = build(config.NextSentence(config.MaskedLm(0.4)), kind, lambda: SPECIAL)
    masked, pairs = (build(one, kind, lambda: SPECIAL) for one in (config.MaskedLm(0.4), config.Classification()))
    after = both.prepare(rows, jax.random.key(0))
    alone = masked.prepare(rows, jax.random.key(0))
    np.testing.assert_array_equal(after.inputs.ids, alone.inputs.ids)
    np.testing.assert_array_equal(after.inputs.types, pairs.prepare(rows, jax.random.key(0)).inputs.types)
    found, _ = both.totals(model, after, None, CALL, {})
    one, _ = masked.totals(model, after, None, CALL, {})
    two, _ = pairs.totals(model, after, None, CALL, {})
    for name, wanted in (("masked_lm", one["masked_lm"]), ("next_sentence", two["classification"])):
        assert float(found[name]) == pytest.approx(float(wanted), rel=1e-5)
    assert both.weights(after)["next_sentence"] == len(labels)


def test_types_are_those_of_second_texts():
    docs, labels = documents()
    rows = batch(*list(layouts(docs))[1], labels)
    types = np.minimum(np.asarray(ends_before(rows.inputs, EOS)), 1)
    ids, segments = np.asarray(rows.inputs.ids), np.asarray(rows.inputs.segments)
    for row in range(ids.shape[0]):
        for segment in range(1, segments[row].max() + 1):
            there = segments[row] == segment
            first = ids[row][there].tolist().index(EOS)
            assert types[row][there].tolist() == [int(place > first) for place in range(there.sum())]


def test_one_token_for_beginning_and_end():
    """GPT-2's stands at both: only an end tells where a second text begins."""
    ids = jnp.asarray([[EOS, 40, EOS, 41, EOS, EOS, 42, EOS]])
    rows = texts.batch([[(0, np.arange(3))]], 8).inputs
    rows = rows.replace(
        ids=ids, segments=jnp.asarray([[1] * 5 + [2] * 3]), positions=jnp.asarray([[*range(5), *range(3)]])
    )
    assert ends_before(rows, EOS).tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]


def test_experts_of_a_batch_couple_its_pairs():
    experts = config.Moe(balance=config.Balance(over="batch"))
    kind = dataclasses.replace(MODELS["first"], block=config.Block(config.Attention(2, 2, 12), experts))
    for over, couples in (("batch", "batch"), ("document", "row")):
        block = dataclasses.replace(kind.block, mlp=dataclasses.replace(experts, balance=config.Balance(over=over)))
        one = dataclasses.replace(kind, block=block, classifier=config.Classifier())
        for objective in (config.NextSentence(), config.Classification()):
            assert build(objective, one, lambda: SPECIAL).couples == couples


@pytest.mark.parametrize(("types", "used"), [(0, False), (1, False), (2, True)])
def test_types_that_a_model_does_not_have(types, used):
    """RoBERTa's table has one row: all tokens are of type 0."""
    docs, labels = documents()
    kind = dataclasses.replace(MODELS["first"], types=types)
    objective = build(config.Classification(), kind, lambda: SPECIAL)
    rows = batch([[one] for one in docs.items()], 40, labels)
    assert (objective.prepare(rows, jax.random.key(0)).inputs.types is not None) == used
    terms, _ = loss(objective, build_model(kind, jax.random.key(1)), rows)
    assert np.isfinite(terms["classification"])


def test_accuracy_counts_texts():
    docs, labels = documents()
    kind = MODELS["first"]
    objective = build(config.Classification(), kind, lambda: SPECIAL)
    model = build_model(kind, jax.random.key(1))
    weight = jnp.zeros_like(model.classifier.out.kernel)
    model = model.replace(
        classifier=model.classifier.replace(
            out=model.classifier.out.replace(kernel=weight, bias=jnp.asarray([0.0, 2.0, 0.0, 0.0]))
        )
    )
    terms, _ = loss(objective, model, batch([[one] for one in docs.items()], 40, labels))
    log_p = np.array([0.0, 2.0, 0.0, 0.0]) - np.log(np.exp([0.0, 2.0, 0.0, 0.0]).sum())
    assert float(terms["accuracy"]) == pytest.approx(np.mean([label == 1 for label in LABELS]))
    assert float(terms["classification"]) == pytest.approx(-log_p[list(LABELS)].mean(), rel=1e-6)
