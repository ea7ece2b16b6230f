"""What is inside of a teacher: losses against torch from the papers' equations, taps against what attention makes
of them, and the whole objective however a batch is cut.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config.distillation import pairs, terms
from jaxlm.config.errors import UsageError
from jaxlm.distill import feature
from jaxlm.distill.objective import Distillation
from jaxlm.distill.student import kept, student
from jaxlm.layers.attention.xla import MASKED
from jaxlm.layers.axes import logical_axes
from jaxlm.layers.names import flatten, partition
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.state import State, place
from jaxlm.train.step import make_step
from tests.distill.test_objective import padded, unpacked
from tests.tiny import CALL, HEADS, SIZES, close, layout, packed_batch, random_model

RNG = np.random.default_rng(0)
LENGTHS = (7, 4, 6)
"""Tokens of each row of 7; the rest is padding."""
REAL = np.arange(7)[None] < np.array(LENGTHS)[:, None]
SEGMENTS = jnp.asarray(REAL, jnp.int32)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def torch_and(*arrays):
    torch = pytest.importorskip("torch")
    return torch, *(torch.tensor(x) for x in arrays)


# --- losses by the papers' equations -----------------------------------------------------------------------


def test_distilberts_cosine():
    """Of all tokens that are not padding, as the authors select them; the control counts padding too."""
    x, y = normal(3, 7, 12), normal(3, 7, 12)
    torch, a, b, mask = torch_and(x, y, REAL)
    wanted = torch.nn.functional.cosine_embedding_loss(a[mask], b[mask], torch.ones(int(mask.sum())))
    each = np.asarray(feature.hidden_distance(jnp.asarray(x), jnp.asarray(y), "cosine"))
    np.testing.assert_allclose(each[REAL].sum() / REAL.sum(), wanted.item(), rtol=1e-6)
    assert abs(each.mean() - wanted.item()) > 1e-3


def test_tinyberts_hidden_states():
    x, y, projection = normal(3, 7, 12), normal(3, 7, 20), normal(12, 20)
    torch, a, b, w, mask = torch_and(x, y, projection, REAL)
    wanted = torch.nn.functional.mse_loss((a @ w)[mask], b[mask])
    each = np.asarray(feature.hidden_distance(jnp.asarray(x) @ projection, jnp.asarray(y), "mse"))
    np.testing.assert_allclose(each[REAL].mean(), wanted.item(), rtol=1e-6)


def masked(scores):
    return jnp.where(REAL[:, None, None, :] & REAL[:, None, :, None], scores, MASKED)


def test_tinyberts_scores():
    """What no query sees is 0 on both sides: a mean over what there is of one text is the mean of its square.

    The authors divide by padded length too, which is the control.
    """
    x, y = normal(3, 4, 7, 7), normal(3, 4, 7, 7)
    torch, a, b = torch_and(x, y)
    each = np.asarray(feature.score_distance(masked(x), masked(y)))
    for row, length in enumerate(LENGTHS):
        own = torch.nn.functional.mse_loss(a[row, :, :length, :length], b[row, :, :length, :length])
        np.testing.assert_allclose(each[row, :length].mean(), own.item(), rtol=1e-6)
    zero = [torch.where(torch.tensor(np.array(masked(one.numpy()))) <= -1e2, 0.0, one) for one in (a, b)]
    whole = torch.nn.functional.mse_loss(*zero)
    assert abs(each[REAL].mean() / whole.item() - 1) > 0.1


def kl_of(torch, teacher, student):
    log = torch.nn.functional.log_softmax
    return torch.nn.functional.kl_div(log(student, -1), log(teacher, -1), log_target=True, reduction="none").sum(-1)


def test_minilms_maps_and_relations():
    """Means over heads and tokens of KL(teacher || student), softmax over the tokens that are."""
    x, y = normal(3, 4, 7, 7), normal(3, 4, 7, 7)
    torch, a, b = torch_and(x, y)
    each = np.asarray(feature.map_divergence(masked(x), masked(y)))
    for row, length in enumerate(LENGTHS):
        part = (slice(None), slice(length), slice(length))
        wanted = kl_of(torch, b[row][part], a[row][part]).mean(0)
        np.testing.assert_allclose(each[row, :length], wanted.numpy(), rtol=1e-5)
        assert np.abs(each[row, :length] - kl_of(torch, a[row][part], b[row][part]).mean(0).numpy()).max() > 1e-3
    v, u = normal(3, 7, 4, 5), normal(3, 7, 4, 9)
    torch, c, d = torch_and(v, u)
    each = np.asarray(feature.map_divergence(*(feature.related(jnp.asarray(one), SEGMENTS) for one in (v, u))))
    for row, length in enumerate(LENGTHS):
        own, hers = (one[row, :length].transpose(0, 1) for one in (c, d))
        scores = [one @ one.transpose(1, 2) / one.shape[-1] ** 0.5 for one in (hers, own)]
        np.testing.assert_allclose(each[row, :length], kl_of(torch, *scores).mean(0).numpy(), rtol=1e-5, atol=1e-6)


def test_attention_transfer():
    x, y = (np.abs(normal(3, 7, 7)) for _ in range(2))
    _, a, b = torch_and(x, y)
    lengths = [one / one.norm(dim=-1, keepdim=True) for one in (a, b)]
    wanted = (lengths[0] - lengths[1]).pow(2).sum(-1)
    x, y = jnp.asarray(x), jnp.asarray(y)
    for scale in (1, 3):
        np.testing.assert_allclose(feature.map_distance(scale * x, y), wanted.numpy(), rtol=1e-5, atol=1e-6)


# --- taps --------------------------------------------------------------------------------------------------

BLOCK = config.Block(HEADS, config.Gated(32))
CAPPED = dataclasses.replace(HEADS, window=4, softcap=3.0, bias="all")
STUDENT = config.Decoder(**SIZES, layers=2, block=BLOCK, dropout=0.1)
TEACHER = config.Decoder(vocab=72, embed=24, layers=4, block=dataclasses.replace(BLOCK, attention=CAPPED))
TAPS = ("scores", "values", "queries", "keys", "attention.query", "attention.out", "embedding", "residual")


@pytest.mark.parametrize(
    "kind", [TEACHER, config.Encoder(**SIZES, layers=2, block=BLOCK)], ids=["decoder", "encoder"]
)
def test_scores_are_those_of_the_attention(kind):
    """softmax(scores) values is what the layer projects: windows, caps, documents and shared heads included."""
    model, batch = random_model(kind), packed_batch(kind)
    call = dataclasses.replace(CALL, taps=TAPS)
    output = jax.jit(lambda tokens: model(tokens, call))(batch.inputs)
    taps = output.taps
    assert taps["scores"].shape == (kind.layers, 8, 4, 12, 12)
    assert taps["embedding"].shape == (1, 8, 12, kind.embed)
    values = jnp.repeat(taps["values"], 2, axis=3)
    weights = jax.nn.softmax(taps["scores"], axis=-1)
    mixed = jnp.einsum("lrhqk,lrkhd->lrqhd", weights, values)
    real = np.asarray(batch.inputs.segments > 0)
    np.testing.assert_allclose(mixed[:, real], taps["attention.out"][:, real], atol=2e-6)
    np.testing.assert_allclose(output.hidden, model(batch.inputs, CALL).hidden, atol=2e-5)
    attention = model.blocks.period[0].attention
    for name in ("query", "key", "value"):
        weight = getattr(attention, name)
        made = jnp.einsum("lrpe,lehd->lrphd", taps["attention.query"], weight.kernel)
        made += 0.0 if weight.bias is None else weight.bias[:, None, None]
        plural = {"query": "queries", "key": "keys", "value": "values"}[name]
        np.testing.assert_allclose(taps[plural], made, atol=1e-5, err_msg="before positions turn them")
    if isinstance(kind, config.Decoder):
        np.testing.assert_array_equal(taps["embedding"][0], model.embedding.kernel[batch.inputs.ids])


def test_other_backends_have_no_scores():
    model, batch = random_model(STUDENT), packed_batch(STUDENT)
    call = dataclasses.replace(CALL, taps=("scores",), attention="blocks")
    with pytest.raises(UsageError, match=r"where\.attention='blocks': it never holds the scores.*choose auto"):
        model(batch.inputs, call)
    rwkv = random_model(config.Rwkv4(**SIZES, layers=2, width=32))
    objective = make(config.AttentionMaps())
    with pytest.raises(UsageError, match="AttentionMaps: the student's layers have no scores"):
        traced(objective, rwkv, random_model(TEACHER))


# --- which layers ------------------------------------------------------------------------------------------


def test_which_layers():
    assert pairs(config.Uniform(), 4, 12) == [(0, 2), (1, 5), (2, 8), (3, 11)]
    assert pairs(config.Last(2), 4, 12) == [(2, 10), (3, 11)]
    assert pairs(config.First(2), 4, 12) == [(0, 0), (1, 1)]
    assert pairs(config.Chosen((0, 3), (4, 11)), 4, 12) == [(0, 4), (3, 11)]
    for layers, message in (
        (config.Last(5), r"layers\.count is 5: the student has 4 layers and the teacher 10; use 1 to 4"),
        (config.Uniform(), "teacher's 10 layers are no multiple of the student's 4"),
        (config.Chosen((0, 1), (2,)), "names 2 layers and layers.teacher 1: name as many"),
        (config.Chosen((0,), (10,)), "layers.teacher names layer 10: it has 10, counted from 0"),
    ):
        with pytest.raises(UsageError, match=message):
            pairs(layers, 4, 10)


def test_terms_have_names_of_their_own():
    found = terms((config.HiddenStates(), config.Relations("keys"), config.HiddenStates(), config.Relations()))
    assert found == ("hidden_states_1", "relations_keys", "hidden_states_2", "relations_values")


# --- the whole objective -----------------------------------------------------------------------------------

FEATURES = (
    config.HiddenStates(0.5, projection="linear"),
    config.HiddenStates(0.25, config.Last(), "cosine", "linear"),
    config.EmbeddingOutput(0.5, projection="linear"),
    config.AttentionScores(0.1),
    config.AttentionMaps(2.0),
    config.AttentionMaps(3.0, config.First(2), "transfer"),
    config.Relations("queries", 1.5),
    config.Relations("values", 1.5, relation_heads=8),
)
BATCH = packed_batch(STUDENT)


def make(*features, labels=0.5, weight=0.5):
    return Distillation(Prediction(chunks=2), config.ForwardKl(), labels, weight, features=features)


@functools.cache
def models():
    ours, theirs = random_model(STUDENT), random_model(TEACHER, seed=1)
    objective = config.Distillation(features=FEATURES)
    return student(ours, objective, TEACHER.embed, jax.random.key(0)), theirs


@functools.cache
def stepped(micro_batches=1, spread=False):
    """(Gradient, metrics) of a step with dropout."""
    ours, theirs = models()
    where, optimizer = layout(fsdp=2, tensor=2) if spread else CALL.layout, optax.sgd(1.0)
    model, frozen = partition(ours, lambda *_: True)
    state = State(jnp.int32(0), model, {"model": frozen, "teacher": theirs}, optimizer.init(model))
    call, batch = dataclasses.replace(CALL, layout=where), BATCH
    step = jax.jit(make_step(make(*FEATURES), optimizer, call, seed=1, micro_batches=micro_batches))
    if spread:
        batch = jax.tree.map(lambda leaf: jax.device_put(leaf, where.sharding(("row",), leaf.shape[:1])), batch)
        state = jax.device_put(state, place(state, optimizer, where))
    new, metrics = jax.device_get(step(state, batch))
    return jax.tree.map(lambda a, b: a - b, model, new.model), metrics


def test_micro_batches_are_the_batch():
    """Each projection learns, and every term is one of the loss."""
    whole, split = stepped(), stepped(2)
    close(split[0], whole[0])
    for term in (*terms(FEATURES), "loss"):
        np.testing.assert_allclose(split[1][term], whole[1][term], rtol=2e-6, err_msg=term)
        assert whole[1][term] > 1e-3
    names = [name for name in flatten(whole[0]) if name.startswith("projections")]
    assert names == [f"projections.{place}.kernel" for place in range(3)]
    assert all(np.linalg.norm(leaf) > 1e-3 for leaf in jax.tree.leaves(whole[0].projections))


def test_eight_devices_step_as_one():
    """Tables of two sizes too, each spread over two devices."""
    whole, spread = stepped(), stepped(2, spread=True)
    for term in (*terms(FEATURES), "loss"):
        np.testing.assert_allclose(spread[1][term], whole[1][term], rtol=5e-6, err_msg=term)
    close(spread[0], whole[0])


def test_padding_and_packing_change_nothing():
    ours, theirs = models()
    objective = make(*FEATURES)
    totals = jax.jit(lambda batch: objective.totals(ours, batch, None, CALL, {"teacher": theirs})[0])
    wanted = totals(BATCH)
    for batch in (padded(BATCH, 16), unpacked(BATCH)):
        got = totals(batch)
        for term in wanted:
            np.testing.assert_allclose(got[term], wanted[term], rtol=1e-5, err_msg=term)
        assert objective.weights(batch) == objective.weights(BATCH)


@pytest.mark.nightly
def test_one_model_is_near_itself():
    """Every distance between a model and itself is zero, and no gradient leads away."""
    theirs = models()[1]
    features = tuple(
        dataclasses.replace(f, projection="none") if "projection" in f.__dict__ else f for f in FEATURES
    )
    objective = make(*features, labels=0.0)

    def value(model):
        return objective.totals(model, BATCH, None, CALL, {"teacher": theirs})[0]

    for term, total in jax.jit(value)(theirs).items():
        assert term == "cross_entropy" or abs(total) < 1e-3, term


def test_what_is_kept_and_where_it_lives():
    ours, _ = models()
    assert kept(ours) is ours.model
    assert kept(ours.model) is ours.model
    assert jax.tree.structure(logical_axes(ours)) == jax.tree.structure(ours)
    plain = student(ours.model, config.Distillation(features=(config.AttentionScores(),)), 24, jax.random.key(0))
    assert plain is ours.model, "nothing to project"


def test_what_does_not_fit_is_refused_by_name():
    ours, theirs = random_model(STUDENT), random_model(TEACHER)
    few = random_model(
        dataclasses.replace(STUDENT, block=dataclasses.replace(BLOCK, attention=config.Attention(2, 2, 8)))
    )
    for model, one, message in (
        (ours, config.HiddenStates(), "HiddenStates: the student has 16 features and the teacher 24; set its proj"),
        (ours, config.HiddenStates(projection="linear"), "its projection is not there to be trained"),
        (few, config.AttentionScores(), "AttentionScores: the student has 2 heads and the teacher 4"),
        (few, config.Relations("queries"), "Relations: the student has 2 heads and the teacher 4"),
        (ours, config.Relations(relation_heads=3), "relation_heads is 3: it must divide the 16 features"),
    ):
        with pytest.raises(UsageError, match=message):
            traced(make(one), model, theirs)
    traced(make(config.Relations("queries", relation_heads=4)), few, theirs)
    traced(make(config.AttentionMaps(distance="transfer")), few, theirs)


def traced(objective, model, teacher):
    return jax.eval_shape(lambda: objective.totals(model, BATCH, None, CALL, {"teacher": teacher}))
