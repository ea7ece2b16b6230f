"""Replaced token detection: ELECTRA's losses, what is shared, what is drawn, and what can be known of it."""

import dataclasses
import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy import stats

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_per_token, parameters
from jaxlm.config.model import generating
from jaxlm.interop import exchange
from jaxlm.layers import random
from jaxlm.layers.axes import fitted, shardings
from jaxlm.layers.contracts import Output
from jaxlm.layers.draw import draw
from jaxlm.layers.names import flatten
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.objectives.replaced_token import OF_ALL, told
from jaxlm.parallel.layout import single_device
from tests.objectives import test_optimum, texts
from tests.objectives.test_optimum import FIRST, MASK, SHARES, SYMBOLS, TEXTS, WORDS
from tests.objectives.texts import SPECIAL, VOCAB
from tests.tiny import CALL, layout, random_model

ONE = single_device()


def block(heads: int, head: int) -> config.Block:
    attention = config.Attention(heads, heads, head, bias="all")
    return config.Block(attention, config.Plain(3 * heads * head, "gelu", bias="all"), config.PostNorm())


ELECTRA = config.Encoder(
    vocab=VOCAB,
    embed=24,
    layers=2,
    block=block(2, 12),
    position=config.Learned(96),
    norm=config.LayerNorm(1e-12),
    head=config.NoHead(),
    embedding=config.Factorized(16),
    types=2,
    classifier=config.Classifier(1, "tokens", "gelu"),
    generator=config.Generator(embed=12, layers=2, block=block(2, 6)),
)
WIDE = dataclasses.replace(ELECTRA, embedding=config.Normed())
EQUAL = dataclasses.replace(ELECTRA, generator=dataclasses.replace(ELECTRA.generator, embed=16, block=block(2, 8)))
PLAIN = dataclasses.replace(
    EQUAL,
    embed=16,
    block=block(2, 8),
    position=config.RelativeBias(buckets=8),
    embedding=config.Unchanged(),
    types=0,
    generator=dataclasses.replace(EQUAL.generator, head=config.Untied()),
)
MODELS = {"factorized": ELECTRA, "wide": WIDE, "equal": EQUAL, "plain": PLAIN}
OBJECTIVE = build(config.ReplacedTokens(), ELECTRA, lambda: SPECIAL)
LENGTHS = (70, 94, 20, 81)


def rows():
    """One text a row, of other lengths."""
    return texts.batch([[(7 + number, text)] for number, text in enumerate(texts.documents(LENGTHS))], 96)


@functools.cache
def prepared():
    return jax.jit(OBJECTIVE.prepare)(rows(), jax.random.key(1))


@jax.jit
def totals(model, batch):
    return OBJECTIVE.totals(model, batch, None, CALL, {})[0]


@jax.jit
def drawn(model, batch):
    """What the model sees in place of the text."""
    _, found = OBJECTIVE._generated(model, batch, None, CALL)
    return jnp.where(batch.weights > 0, found, batch.targets)


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


def test_parameters_are_those_of_transformers():
    """ELECTRA base: a discriminator of 109,483,009 beside a generator of 256 features in 12 layers."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from jaxlm.families import electra

    beside = config.Generator(256, 12, block=dataclasses.replace(block(4, 64), mlp=WIDTH))
    kind = dataclasses.replace(electra.electra("base"), generator=beside)
    told = exchange.published(generating(kind), 512)[1]
    with torch.device("meta"):
        reference = transformers.ElectraForMaskedLM(transformers.ElectraConfig(**told))
    tables = sum(one.numel() for one in reference.electra.embeddings.parameters())
    own = sum(one.numel() for one in reference.parameters()) - tables
    assert parameters(kind)["generator"] == own
    assert parameters(kind)["total"] == 109_483_009 + own


WIDTH = config.Plain(1024, "gelu", bias="all")


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


# --- beside transformers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """`references(kind)`: (ElectraForPreTraining, ElectraForMaskedLM) of its random model, as it is exported."""
    transformers = pytest.importorskip("transformers")

    @functools.cache
    def make(name):
        kind, there = MODELS[name], tmp_path_factory.mktemp(name)
        model = random_model(kind)
        assert exchange.save(kind.alone, model.alone, there / "discriminator", length=96) == "electra"
        exchange.save(generating(kind), model.generating, there / "generator", length=96, model_type="electra")
        loaded = transformers.ElectraForPreTraining, transformers.ElectraForMaskedLM
        return tuple(
            one.from_pretrained(there / part, attn_implementation="eager").eval()
            for one, part in zip(loaded, ("discriminator", "generator"))
        )

    return make


@pytest.mark.parametrize(
    "name", ["factorized", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("wide", "equal"))]
)
def test_losses_are_those_of_transformers(references, name):
    torch = pytest.importorskip("torch")
    discriminator, generator = references(name)
    model, batch = random_model(MODELS[name]), prepared()
    # Every other hidden word is what is drawn for it.
    even = jnp.asarray(np.arange(96) % 2 == 0)[None]
    batch = batch.replace(targets=jnp.where(even, drawn(model, batch), batch.targets))
    real, shown = batch.inputs.segments > 0, drawn(model, batch)
    replaced = (shown != batch.targets) & real
    assert 0.03 < float(replaced.sum() / real.sum()) < 0.3
    tensor = lambda x: torch.tensor(np.asarray(x)).long()  # noqa: E731
    with torch.no_grad():
        seen = tensor(real)
        labels = tensor(np.where(batch.weights > 0, batch.targets, -100))
        masked = generator(tensor(batch.inputs.ids), attention_mask=seen, labels=labels)
        found = discriminator(
            tensor(shown), attention_mask=seen, labels=tensor(replaced), output_hidden_states=True
        )
        # the control: what was drawn equal to the text counts as replaced
        drawn_at = tensor((batch.weights > 0) & real)
        wrong = discriminator(tensor(shown), attention_mask=seen, labels=drawn_at)
    output = model(batch.inputs.replace(ids=shown), CALL)
    where = np.asarray(real)
    for ours, theirs in (
        (output.hidden, found.hidden_states[-1]),
        (model.classify(output.hidden, CALL)[..., 0], found.logits),
        (model.generating.logits(model.generating(batch.inputs, CALL).hidden, CALL), masked.logits),
    ):
        ours, theirs = np.asarray(ours)[where], theirs.numpy()[where]
        assert np.abs(ours - theirs).max() <= 2e-5 * max(1.0, np.std(theirs))
    sums, weights = totals(model, batch), OBJECTIVE.weights(batch)
    means = {term: float(sums[term] / weights[term]) for term in sums}
    assert means["masked_lm"] == pytest.approx(masked.loss.item(), rel=1e-5)
    assert means["replaced"] == pytest.approx(found.loss.item(), rel=1e-5)
    assert abs(means["replaced"] / wrong.loss.item() - 1) > 1e-2
    # what is measured, by theirs
    hit = (masked.logits.argmax(-1) == labels).sum() / (labels >= 0).sum()
    right = ((found.logits > 0).long() == tensor(replaced))[seen > 0].float().mean()
    assert means["generator_accuracy"] == pytest.approx(hit.item(), rel=1e-6)
    assert means["discriminator_accuracy"] == pytest.approx(right.item(), rel=1e-6)
    assert means["replaced_share"] == pytest.approx(float(replaced.sum() / real.sum()), rel=1e-6)


def test_tables_of_its_own_are_another_generator(references):
    """The control: the exported generator has the discriminator's tables, and needs them."""
    torch = pytest.importorskip("torch")
    _, generator = references("factorized")
    model = random_model(ELECTRA)
    other = random_model(generating(ELECTRA), seed=1)
    mixed = dataclasses.replace(model.generating, embedding=other.embedding)
    ids = prepared().inputs.replace(segments=jnp.ones_like(prepared().inputs.segments))
    with torch.no_grad():
        theirs = generator(torch.tensor(np.asarray(ids.ids)).long()).logits.numpy()
    positions = jnp.broadcast_to(jnp.arange(96), ids.ids.shape)
    for one, same in ((model.generating, True), (mixed, False)):
        ours = one.logits(one(ids.replace(positions=positions), CALL).hidden, CALL)
        error = np.abs(np.asarray(ours) - theirs).max() / max(1.0, np.std(theirs))
        assert error <= 2e-5 if same else error > 2e-3


# --- what is drawn -----------------------------------------------------------------------------------------

LOGITS = np.random.default_rng(0).standard_normal(48).astype(np.float32) * 1.5
DRAWS = 60_000


@functools.cache
def counts(seed: int = 0) -> np.ndarray:
    """How often each of 48 tokens was drawn."""
    places = jnp.arange(DRAWS).reshape(300, 200)
    keys = random.token_keys(jax.random.key(seed), places // 50, places % 50)
    logits = jnp.broadcast_to(LOGITS, (300, 200, 48))
    tokens = jax.jit(lambda x, k: draw(x, k, ONE))(logits, jax.random.key_data(keys))
    return np.bincount(np.asarray(tokens).ravel(), minlength=48)


def test_draws_have_the_probabilities_of_the_softmax():
    """Chi-square over the vocabulary; the control is a softmax of logits a tenth larger."""
    expected = np.exp(LOGITS.astype(np.float64))
    assert stats.chisquare(counts(), DRAWS * expected / expected.sum()).pvalue > 1e-3
    wrong = np.exp(1.1 * LOGITS.astype(np.float64))
    assert stats.chisquare(counts(), DRAWS * wrong / wrong.sum()).pvalue < 1e-9


def test_neighbors_are_drawn_apart():
    """Of tokens that follow one another all pairs are as likely as their product: chi-square over the likeliest."""
    keys = random.token_keys(jax.random.key(2), *jnp.meshgrid(jnp.arange(300), jnp.arange(200), indexing="ij"))
    logits = jnp.broadcast_to(jnp.asarray(LOGITS[:6]), (300, 200, 6))
    tokens = np.asarray(jax.jit(lambda x, k: draw(x, k, ONE))(logits, jax.random.key_data(keys)))
    for one, other in ((tokens[:, ::2], tokens[:, 1::2]), (tokens[::2], tokens[1::2])):
        table = np.zeros((6, 6))
        np.add.at(table, (one.ravel(), other.ravel()), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("vocab", [16, 60])
def test_a_spread_vocabulary_draws_the_same(vocab):
    """On each of four devices a quarter of the scores, and of the noise."""
    where, rng = layout(tensor=4), np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((3, 8, vocab)), jnp.float32)
    keys = jnp.asarray(rng.integers(0, 2**32, (3, 8, 2)), jnp.uint32)
    wanted = np.asarray(draw(logits, keys, ONE))
    assert len(set((wanted // (vocab // 4)).ravel())) == 4
    spread, own = PartitionSpec(None, None, "tensor"), PartitionSpec(None, "tensor")
    run = jax.jit(where.spmd(lambda x, k: draw(x, k, where), (spread, own), own))
    np.testing.assert_array_equal(run(logits, keys), wanted)


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
    batch = objective.prepare(test_optimum.drawn(60_000, 0), jax.random.key(5))
    sums, weights = objective.totals(Knows(known), batch, None, CALL, {})[0], objective.weights(batch)
    assert float(sums["masked_lm"] / weights["masked_lm"]) == pytest.approx(known.masked_lm, rel=0.02)
    assert float(sums["replaced"] / weights["replaced"]) == pytest.approx(known.loss, rel=0.02)
    # the control: a model that takes all that is drawn for replaced, and one that is told so
    wrong = best(equal_counts=True)
    assert wrong.loss > 1.1 * known.loss
    sums = objective.totals(Knows(wrong), batch, None, CALL, {})[0]
    assert float(sums["replaced"] / weights["replaced"]) > 1.1 * known.loss


@pytest.mark.nightly
def test_a_small_model_reaches_the_optimum():
    """A small generator and a small model reach both; the generator first, by whose draws the other learns."""
    objective = build(KIND, SMALL, lambda: SPECIAL)
    found = test_optimum.terms_reached(objective, SMALL)
    assert found["masked_lm"] == pytest.approx(best().masked_lm, rel=0.02)
    assert found["replaced"] == pytest.approx(best().loss, rel=0.02)
