"""An encoder's own parts: types of tokens, narrow tables, the norm at the end, vectors and scores of documents."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_per_token, parameters
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.names import flatten
from jaxlm.models import build
from jaxlm.models.pooling import pooled
from tests.tiny import CALL, KINDS, SIZES, close, layout, random_ids, random_model, tokens

KIND = dataclasses.replace(
    KINDS["encoder"],
    head=config.Transformed(),
    embedding=config.Factorized(8),
    types=3,
    classifier=config.Classifier(labels=5, of="mean"),
)
NARROW = dataclasses.replace(KIND, head=config.Transformed("relu", "vocab"), embedding=config.Normed(), types=0)
SENTENCES = dataclasses.replace(KIND, head=config.NoHead(), classifier=config.Classifier(1, "tokens", "none"))
LENGTHS = (7, 4, 1)
TOLERANCE = 2e-5


@jax.jit
def run(model, tokens):
    """Scores of tokens, and of labels at every position."""
    hidden = model(tokens, CALL).hidden
    features = pooled(hidden, tokens, model.config.classifier.of, CALL)
    return model.logits(hidden, CALL), model.classify(features, CALL)


def documents(seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.integers(1, SIZES["vocab"], n), rng.integers(0, 3, n)) for n in LENGTHS]


def laid(documents, segments):
    """One row of documents where `segments` has their numbers."""
    row = np.zeros((4, len(segments)), np.int32)
    row[1] = segments
    for number, (ids, types) in enumerate(documents, start=1):
        (at,) = np.nonzero(row[1] == number)
        row[0, at], row[2, at], row[3, at] = ids, np.arange(len(ids)), types
    ids, segments, positions, types = jnp.asarray(row[:, None])
    return Tokens(ids, segments, positions, types=types)


PACKED = np.array([1] * 7 + [2] * 4 + [3])
WAYS = {
    "padded on the right": [1] * 7 + [2] * 4 + [3] + [0] * 5,
    "padded on the left": [0] * 5 + [1] * 7 + [2] * 4 + [3],
    "padded in between": [1] * 7 + [0] * 2 + [2] * 4 + [0] * 3 + [3],
}


DISENTANGLED = dataclasses.replace(KIND, position=config.Disentangled(4, 6), embedding=config.Normed())
NARROW = dataclasses.replace(DISENTANGLED, embedding=config.Factorized(8))


@pytest.mark.parametrize(
    ("kind", "of"),
    [(KIND, "first"), (KIND, "mean"), (KIND, "last"), (KIND, "tokens"), (DISENTANGLED, "mean"), (NARROW, "mean")],
)
def test_a_document_is_itself_however_it_lies(kind, of):
    wanted = dataclasses.replace(kind, classifier=dataclasses.replace(kind.classifier, of=of))
    model = random_model(kind).replace(config=wanted)
    found = {}
    for number, one in enumerate(documents(), start=1):
        alone = [1] * len(one[0]) + [0] * (17 - len(one[0]))
        found[number] = [np.asarray(x)[0, : len(one[0])] for x in run(model, laid([one], alone))]
    for segments in WAYS.values():
        row = run(model, laid(documents(), segments))
        for number, alone in found.items():
            for got, wanted in zip(row, alone, strict=True):
                here = np.asarray(got)[0, np.array(segments) == number]
                assert np.abs(here - wanted).max() <= TOLERANCE * max(1, wanted.std())
    one = jnp.ones((1, 12), jnp.int32)
    joined = laid(documents(), PACKED).replace(segments=one, positions=jnp.cumsum(one, axis=1) - 1)
    assert np.abs(np.asarray(run(model, joined)[0])[0, :7] - found[1][0]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("of", ["first", "mean", "last"])
def test_pooling_is_what_it_says(of):
    """Against loops, where positions and not places tell what comes first."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((2, 9, 4)).astype(np.float32)
    segments = np.array([[2, 2, 0, 1, 1, 1, 3, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 1]], np.int32)
    positions = np.array([[1, 0, 0, 6, 5, 4, 0, 9, 3], [0, 0, 3, 4, 0, 1, 2, 5, 6]], np.int32)
    tokens = Tokens(*(jnp.asarray(x) for x in (segments, segments, positions)))
    got = np.asarray(pooled(jnp.asarray(hidden), tokens, of, CALL))
    for row, pos in zip(*np.nonzero(segments), strict=True):
        (at,) = np.nonzero(segments[row] == segments[row, pos])
        at = at[np.argsort(positions[row, at])]
        wanted = {"first": hidden[row, at[0]], "last": hidden[row, at[-1]], "mean": hidden[row, at].mean(0)}[of]
        np.testing.assert_allclose(got[row, pos], wanted, atol=1e-6)
    assert np.isfinite(got).all()


def test_types_matter_and_none_is_the_first():
    model, tokens = random_model(KIND), laid(documents(), PACKED)
    found = run(model, tokens)[0]
    zero = run(model, tokens.replace(types=jnp.zeros_like(tokens.ids)))[0]
    np.testing.assert_array_equal(run(model, tokens.replace(types=None))[0], zero)
    assert np.abs(found - zero).max() > 100 * TOLERANCE


@pytest.mark.parametrize("kind", [KIND, NARROW, SENTENCES, DISENTANGLED])
def test_parameters_are_as_counted(kind):
    leaves = flatten(jax.eval_shape(lambda: build(kind, jax.random.key(0))))
    assert sum(math.prod(leaf.shape) for leaf in leaves.values()) == parameters(kind)["total"]
    assert not any(name.startswith("norm.") for name in leaves)


def test_operations_of_narrow_tables_and_their_head():
    plain, narrow = (
        dataclasses.replace(KIND, head=head, embedding=config.Unchanged())
        for head in (config.Tied(), config.Transformed())
    )
    count = {
        name: flops_per_token(kind, 16)
        for name, kind in {"plain": plain, "narrow": narrow, "both": KIND, "none": SENTENCES}.items()
    }
    embed, vocab = KIND.embed, KIND.vocab
    assert count["plain"]["head"] == 2 * embed * vocab
    assert count["narrow"]["head"] == 2 * embed * (vocab + embed)
    assert count["both"]["head"] == 2 * 8 * (vocab + embed)
    assert count["none"]["head"] == 0
    assert count["both"]["projections"] - count["plain"]["projections"] == 2 * 8 * embed


def test_keys_of_a_window_lie_on_both_sides():
    """Against counting, of which the closed form takes as much on the diagonal as next to it."""

    def attention(window, length=512):
        block = config.Block(config.Attention(1, 1, 8, window=window))
        return flops_per_token(config.Encoder(**SIZES, layers=1, block=block), length)["attention"] / (2 * 2 * 8)

    places = np.arange(512)
    for window in (65, 100):
        seen = np.abs(places[:, None] - places) < window
        assert attention(window) == pytest.approx(seen.sum() / 512, rel=0.01)
    assert attention(None) == attention(512) == 512


def test_what_a_model_lacks_is_told():
    with pytest.raises(UsageError, match="no_head"):
        random_model(SENTENCES).scorer(CALL)
    with pytest.raises(UsageError, match="scores no labels"):
        random_model(KINDS["encoder"]).classify(jnp.zeros((1, 16)), CALL)
    with pytest.raises(UsageError, match="scores no labels"):
        random_model(KINDS["decoder"]).classify(jnp.zeros((1, 16)), CALL)


def test_a_decoder_scores_labels_too():
    kind = dataclasses.replace(KINDS["decoder"], classifier=config.Classifier(3, "last", "none"))
    model = random_model(kind)
    assert model.classify(jnp.ones((2, 16)), CALL).shape == (2, 3)
    assert parameters(kind)["classifier"] == 17 * 3


@pytest.mark.parametrize(
    ("block", "normed"),
    [
        (config.Block(wiring=config.PostNorm()), True),
        (config.Block(), False),
        (config.Pattern((config.Block(wiring=config.PostNorm()),), suffix=(config.Block(),)), False),
        (config.Pattern((config.Block(),), suffix=(config.Block(wiring=config.PostNorm()),)), True),
        (config.Pattern((config.Block(), config.Block(wiring=config.PostNorm()))), True),
    ],
)
def test_a_last_layer_that_ends_with_a_norm_needs_none_after_it(block, normed):
    sizes = SIZES | {"layers": 4}
    if isinstance(block, config.Pattern) and block.suffix:
        sizes["layers"] = 3
    kinds = [config.Decoder(**sizes, block=block), config.Encoder(**sizes, block=block)]
    if isinstance(block, config.Block):
        kinds.append(config.EncoderDecoder(**SIZES, encoder_layers=2, decoder_layers=1, block=block))
    for kind in kinds:
        names = flatten(jax.eval_shape(lambda kind=kind: build(kind, jax.random.key(0))))
        last = {"norm.scale", "encoder_norm.scale", "decoder.norm.scale"} & names.keys()
        assert bool(last) != normed
        assert sum(math.prod(leaf.shape) for leaf in names.values()) == parameters(kind)["total"]


# --- layers that share their parameters --------------------------------------------------------------------

PAIR = (KIND.block, dataclasses.replace(KIND.block, wiring=config.PreNorm(), mlp=config.Gated(24)))
SHARED = dataclasses.replace(KIND, layers=6, block=config.Shared(PAIR))


@jax.jit
def summed(model, tokens):
    return jax.value_and_grad(lambda model: jnp.sum(run(model, tokens)[0] ** 2))(model)


def test_shared_layers_are_copies_of_one_another():
    """Values and gradients of a pattern with the same parameters in every repeat: there, gradients add up."""
    model, tokens = random_model(SHARED), laid(documents(), PACKED)
    copies = tuple(jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), layer) for layer in model.blocks.shared)
    kind = dataclasses.replace(SHARED, block=config.Pattern(PAIR))
    stacked = model.replace(config=kind, blocks=model.blocks.replace(period=copies, shared=()))
    value, gradients = summed(model, tokens)
    wanted, apart = summed(stacked, tokens)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), apart.blocks.period)
    close(gradients.blocks.shared, total)


@pytest.mark.nightly
def test_shared_layers_draw_their_own_dropout():
    """Scanned as unrolled, and as a pattern of copies: what is drawn follows the layer and not its parameters."""
    kind, row = dataclasses.replace(SHARED, dropout=0.5), laid(documents(), PACKED)
    model, key = build(kind, jax.random.key(0)), jax.random.split(jax.random.key(1), 1)
    copies = tuple(jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), layer) for layer in model.blocks.shared)
    stacked = model.replace(blocks=model.blocks.replace(period=copies, shared=()))
    run = jax.jit(lambda model, call: model(row, call, key=key).hidden, static_argnums=1)
    scanned = run(model, CALL)
    for other in (run(stacked, CALL), run(model, dataclasses.replace(CALL, layers="unroll"))):
        np.testing.assert_allclose(scanned, other, atol=TOLERANCE)


def test_shared_layers_count_once_and_work_every_time():
    leaves = flatten(jax.eval_shape(lambda: build(SHARED, jax.random.key(0))))
    assert "blocks.shared.1.mlp.gate.kernel" in leaves
    assert sum(math.prod(leaf.shape) for leaf in leaves.values()) == parameters(SHARED)["total"]
    apart = dataclasses.replace(SHARED, block=config.Pattern(PAIR))
    assert parameters(apart)["attention"] == 3 * parameters(SHARED)["attention"]
    assert flops_per_token(apart, 16) == flops_per_token(SHARED, 16)
    with pytest.raises(UsageError, match=r"model.layers.*is 5|model.layers=5"):
        build(dataclasses.replace(SHARED, layers=5), jax.random.key(0))


@pytest.mark.nightly
def test_a_shared_decoder_decodes():
    kind = config.Decoder(**SIZES, layers=4, block=config.Shared((KINDS["encoder_decoder"].block,)))
    model, ids = random_model(kind), random_ids(2, 9)
    wanted = model.logits(model(tokens(ids), CALL).hidden, CALL)
    cache, found = model.empty_cache(2, 9, CALL), []
    for part in (slice(0, 5), slice(5, 9)):
        output = model(jax.tree.map(lambda x, part=part: x[:, part], tokens(ids)), CALL, cache=cache)
        found.append(model.logits(output.hidden, CALL))
        cache = output.cache
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), wanted, atol=1e-4)


def test_a_pipeline_refuses_shared_layers():
    where = layout(pipeline=2)
    whole = jax.sharding.PartitionSpec()
    spread = where.spmd(lambda m: m(laid(documents(), PACKED), Call(where)).hidden, whole, whole)
    with pytest.raises(UsageError, match="pipeline=2: every stage would need the parameters that all layers share"):
        spread(random_model(SHARED))


# --- disentangled attention --------------------------------------------------------------------------------


def test_scores_are_products_of_three_kinds():
    """One layer's attention against loops (arXiv:2006.03654, equations 2 to 4), far beyond the buckets."""
    kind = config.Encoder(
        **SIZES,
        layers=1,
        block=config.Block(config.Attention(4, 4, 8, bias="all", scale=24**-0.5)),
        position=config.Disentangled(4, 6, "plain"),
    )
    model, rng = random_model(kind), np.random.default_rng(0)
    layer, x = model.blocks.layers()[0].attention, rng.standard_normal((1, 20, 16)).astype(np.float32)
    row = tokens(np.ones((1, 20), int))
    got, _, _ = layer(jnp.asarray(x), row, model.position, CALL, causal=False)
    layer, x, model = jax.tree.map(np.asarray, (layer, x, model))
    q, k, v = (np.einsum("pe,ehd->phd", x[0], w.kernel) + w.bias for w in (layer.query, layer.key, layer.value))
    table = np.asarray(model.position.table.kernel)
    by_query, by_key = (np.einsum("te,ehd->thd", table, w.kernel) + w.bias for w in (layer.key, layer.query))
    # The middle is 4; single ones up to 2, then ceil(log(d / 2) / log(5 / 2)) + 2, cut to the table's 8 rows.
    places = {0: 4, 1: 5, 2: 6, 3: 7, 4: 7, 5: 7, 6: 8}
    scores = np.zeros((4, 20, 20))
    for i in range(20):
        for j in range(20):
            here = places[min(abs(i - j), 6)]
            here = min(here, 7) if i >= j else 8 - here
            scores[:, i, j] = np.sum(q[i] * k[j] + q[i] * by_query[here] + k[j] * by_key[here], -1) * 24**-0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted = np.einsum("hij,jhd,hde->ie", weights, v, layer.out.kernel) + layer.out.bias
    assert np.abs(got[0] - wanted).max() <= TOLERANCE * max(1, wanted.std())


def test_disentangled_attention_is_for_encoders():
    for kind in (
        config.Decoder(**SIZES, layers=1, position=config.Disentangled()),
        config.Encoder(**SIZES, layers=1, block=KINDS["encoder_decoder"].block, position=config.Disentangled()),
    ):
        with pytest.raises(UsageError, match="it is for encoders with as many keys as queries, not for heads="):
            build(kind, jax.random.key(0))
    with pytest.raises(UsageError, match=r"position\.buckets=4, distance=3: half of at least 4 buckets"):
        build(dataclasses.replace(DISENTANGLED, position=config.Disentangled(4, 3)), jax.random.key(0))
