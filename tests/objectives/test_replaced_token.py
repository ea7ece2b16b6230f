"""Replaced token detection: what is shared, what is seen, and what can be known of both losses."""

import dataclasses
import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_per_token, parameters
from jaxlm.config.model import generating
from jaxlm.layers.axes import fitted, shardings
from jaxlm.layers.contracts import Output
from jaxlm.layers.names import flatten
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.objectives.replaced_token import OF_ALL, told
from tests.objectives import test_optimum, texts
from tests.objectives.electra import ELECTRA, LENGTHS, MODELS, OBJECTIVE, drawn, prepared, rows, totals
from tests.objectives.test_optimum import FIRST, MASK, SHARES, SYMBOLS, TEXTS, WORDS
from tests.objectives.texts import SPECIAL, VOCAB
from tests.tiny import CALL, layout, random_model

# --- what is shared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_closed_forms_count_what_is_shared_once(name):
    kind = MODELS[name]
    model = jax.eval_shape(lambda: build_model(kind, jax.random.key(0)))
    count, own = parameters(kind), flatten(model.generator)
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == count["total"]
    assert sum(leaf.size for leaf in own.values()) == count["generator"]
    assert not {"embedding.kernel", "position.table.kernel" if name != "plain" else "", "types.kernel"} & own.keys()
    assert count["total"] - count["generator"] == parameters(kind.alone)["total"]
    alone = jax.eval_shape(lambda: build_model(generating(kind), jax.random.key(0)))
    whole = jax.eval_shape(lambda model: model.generating, model)
    assert {key: leaf.shape for key, leaf in flatten(whole).items()} == {
        key: leaf.shape for key, leaf in flatten(alone).items()
    }
    assert whole.config == generating(kind)
    flops = flops_per_token(kind, 96)
    assert flops["generator"] == flops_per_token(generating(kind), 96)["forward"]
    scored = 2 * kind.embed * (kind.embed + 1)
    assert flops["forward"] == sum(flops[part] for part in ("projections", "attention", "generator")) + scored
    places = flatten(shardings(model, fitted(layout(fsdp=2), model)))
    assert places.keys() == flatten(model).keys()


def test_only_what_is_shared_learns_from_both():
    """Nothing flows through what was drawn; masked words teach the tables, and nothing else of the model."""
    model, batch = random_model(ELECTRA), prepared()

    def of(term):
        return flatten(jax.jit(jax.grad(lambda model: totals(model, batch)[term]))(model))

    shared = {"embedding.kernel", "position.table.kernel", "types.kernel"}
    shared |= {f"embedding_norm.{leaf}" for leaf in ("scale", "bias")}
    for term, others in (("masked_lm", False), ("replaced", True)):
        gradients = of(term)
        assert shared <= gradients.keys()
        for name, leaf in gradients.items():
            learns = name in shared or name.startswith("generator.") != others
            assert (np.abs(leaf).max() > 0) == learns, (term, name)
    for term in ("generator_accuracy", "discriminator_accuracy", "replaced_share"):
        assert all((np.asarray(leaf) == 0).all() for leaf in of(term).values())


def test_what_cannot_be_shared_is_refused():
    kind = dataclasses.replace(ELECTRA, embedding=config.Unchanged())
    with pytest.raises(UsageError, match=r"model\.generator\.embed=12: unchanged tables have 24 features"):
        build_model(kind, jax.random.key(0))
    with pytest.raises(UsageError, match=r"model\.generator is no_generator"):
        totals(random_model(ELECTRA.alone), prepared())


# --- what is seen ------------------------------------------------------------------------------------------


def test_packing_and_padding_draw_the_same():
    """The same text draws the same tokens in any row, and others with another key."""
    docs = list(enumerate(texts.documents((9, 17, 30)), start=5))
    model, found = random_model(ELECTRA), []
    for seed, laid, length in ((0, [[one] for one in docs], 40), (0, [docs[::-1]], 64), (1, [docs], 64)):
        before = texts.batch(laid, length)
        batch = jax.jit(OBJECTIVE.prepare)(before, jax.random.key(seed))
        shown = batch.replace(inputs=batch.inputs.replace(ids=drawn(model, batch)))
        found.append(texts.by_document(before, shown))
    assert found[0] == found[1] != found[2]


def test_what_the_model_sees():
    """The text, but for hidden tokens; the generator sees masks there."""
    before, batch = rows(), prepared()
    hidden = np.asarray(batch.weights) > 0
    assert hidden.sum() == pytest.approx(0.15 * sum(LENGTHS), rel=0.35)
    assert (np.asarray(batch.inputs.ids)[hidden] == MASK).all()
    shown, text = np.asarray(drawn(random_model(ELECTRA), batch)), np.asarray(before.inputs.ids)
    np.testing.assert_array_equal(shown[~hidden], text[~hidden])
    assert (shown[hidden] != text[hidden]).mean() > 0.7


def test_told_rightly_and_wrongly():
    """By hand, with scores that would overflow."""
    scores = jnp.array([[200.0, -200.0, 0.5, -0.5, 9.0]])
    replaced, real = jnp.array([[True, True, False, False, True]]), jnp.array([[True] * 4 + [False]])
    found = told(scores, replaced, real)
    assert tuple(found) == OF_ALL
    nats = 0.0 + 200.0 + np.log1p(np.exp(0.5)) + np.log1p(np.exp(-0.5))
    np.testing.assert_allclose([found[term] for term in OF_ALL], [nats, 2, 2], rtol=1e-6)


# --- what can be known -------------------------------------------------------------------------------------

KIND = config.ReplacedTokens(config.MaskedLm(0.4, masked=1.0, replaced=0.0, chunks=1))
GENERATOR = config.Generator(48, 2, test_optimum.BLOCK, config.Untied())
SMALL = dataclasses.replace(
    test_optimum.ENCODER, head=config.NoHead(), classifier=ELECTRA.classifier, generator=GENERATOR
)


@dataclass(frozen=True)
class Optimum:
    """What both lose at best: with the probabilities of words given what is shown, and of their being replaced."""

    words: np.ndarray  # place, what is shown as a number in base 3, word
    masked_lm: float
    replaced: np.ndarray  # place, the text seen as a number in base 2
    loss: float

    @classmethod
    def of(cls, rate: float, equal_counts: bool = False) -> "Optimum":
        """By enumeration of texts, masks and what is drawn; `equal_counts` takes what is drawn for replaced."""
        masks = np.array(list(itertools.product((0, 1), repeat=WORDS)))
        base = 3 ** np.arange(WORDS)[::-1]
        joint = np.zeros((WORDS, 3**WORDS, SYMBOLS))
        for mask in masks:
            p = rate ** mask.sum() * (1 - rate) ** (WORDS - mask.sum())
            for share, text in zip(SHARES, TEXTS):
                shown = np.where(mask, 2, text) @ base
                for place in np.flatnonzero(mask):
                    joint[place, shown, text[place]] += p * share
        words = joint / np.maximum(joint.sum(-1, keepdims=True), 1e-300)
        masked_lm = -(joint * np.log(np.where(joint > 0, words, 1))).sum() / (WORDS * rate)
        seen = np.zeros((WORDS, 2, 2**WORDS))  # place, replaced or not, what is seen
        for mask in masks:
            p = rate ** mask.sum() * (1 - rate) ** (WORDS - mask.sum())
            for share, text in zip(SHARES, TEXTS):
                shown = np.where(mask, 2, text) @ base
                chances = np.prod(np.where(mask, words[np.arange(WORDS), shown, TEXTS], text == TEXTS), axis=1)
                flags = mask == 1 if equal_counts else text != TEXTS
                for place in range(WORDS):
                    flag = np.broadcast_to(flags[..., place], len(TEXTS)).astype(int)
                    np.add.at(seen[place], (flag, np.arange(len(TEXTS))), p * share * chances)
        replaced = seen[:, 1] / seen.sum(1)
        nats = -(seen * np.log(np.where(seen > 0, seen / seen.sum(1, keepdims=True), 1))).sum()
        return cls(words, masked_lm, replaced, nats / (WORDS + 2))


class Knows:
    """A model whose probabilities are the best there are; its hidden state is what it sees, as a number."""

    def __init__(self, best: Optimum):
        words = np.full((WORDS, 3**WORDS, VOCAB), -1e9)
        words[..., FIRST : FIRST + SYMBOLS] = np.log(np.maximum(best.words, 1e-300))
        self.words = jnp.asarray(words.reshape(-1, VOCAB), jnp.float32)
        odds = np.log(np.maximum(best.replaced, 1e-30)) - np.log(np.maximum(1 - best.replaced, 1e-30))
        self.odds = jnp.asarray(odds.ravel(), jnp.float32)

    @property
    def generating(self):
        return Guesses(self.words)

    def __call__(self, inputs, call, *, memory=None, cache=None, key=None):
        return Output(numbered(inputs.ids, 2))

    def classify(self, hidden, call):
        index = hidden[..., 0].astype(int)
        return jnp.where(index < 0, -1e9, self.odds[jnp.maximum(index, 0)])[..., None]

    encode = scorer = logits = empty_cache = __call__


class Guesses:
    def __init__(self, words):
        self.words = words

    def __call__(self, inputs, call, *, key=None):
        return Output(numbered(inputs.ids, 3))

    def scorer(self, call):
        return lambda hidden: self.words[jnp.maximum(hidden[..., 0].astype(int), 0)]


def numbered(ids, base):
    """[row, pos, 1]: the place and what the row shows of its words; -1 where there is no word."""
    digits = jnp.where(ids[:, 1:-1] == MASK, 2, ids[:, 1:-1] - FIRST)
    number = jnp.sum(digits * (base ** jnp.arange(WORDS)[::-1])[None], axis=1, keepdims=True)
    places = (jnp.arange(WORDS) * base**WORDS)[None] + number
    return jnp.pad(places, ((0, 0), (1, 1)), constant_values=-1)[..., None].astype(jnp.float32)


@functools.cache
def best(equal_counts: bool = False) -> Optimum:
    return Optimum.of(KIND.hidden.rate, equal_counts)


def test_the_best_model_loses_what_is_counted():
    """Both losses of a model that knows all probabilities, over many texts, are those counted out by hand."""
    known, objective = best(), build(KIND, SMALL, lambda: SPECIAL)
    assert known.masked_lm == pytest.approx(test_optimum.masked_lm(KIND.hidden), rel=1e-9), "of masks alone"
    batch = objective.prepare(test_optimum.drawn(20_000, 0), jax.random.key(5))
    sums, weights = objective.totals(Knows(known), batch, None, CALL, {})[0], objective.weights(batch)
    assert float(sums["masked_lm"] / weights["masked_lm"]) == pytest.approx(known.masked_lm, rel=0.02)
    assert float(sums["replaced"] / weights["replaced"]) == pytest.approx(known.loss, rel=0.02)
    # the control: a model that takes all that is drawn for replaced, and one that is told so
    wrong = best(equal_counts=True)
    assert wrong.loss > 1.1 * known.loss
    sums = objective.totals(Knows(wrong), batch, None, CALL, {})[0]
    assert float(sums["replaced"] / weights["replaced"]) > 1.1 * known.loss


@pytest.mark.nightly
def test_a_small_model_reaches_the_optimum(record_property):
    """A small generator and a small model reach both; the generator first, by whose draws the other learns."""
    objective = build(KIND, SMALL, lambda: SPECIAL)
    found = test_optimum.terms_reached(objective, SMALL)
    assert found["masked_lm"] == pytest.approx(best().masked_lm, rel=0.02)
    assert found["replaced"] == pytest.approx(best().loss, rel=0.02)
    record_property("objective", "replaced_tokens")
    record_property("optimum", found["replaced"] / best().loss)
    record_property("control", best(equal_counts=True).loss / best().loss)
