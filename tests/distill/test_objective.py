"""The objective of a student: its terms by hand, and that they add up however a batch is cut."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.special import Special
from jaxlm.distill.build import build
from jaxlm.distill.objective import Distillation
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.layers.names import partition
from jaxlm.models import build as build_model
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.state import State, place
from jaxlm.train.step import make_step
from tests.tiny import CALL, GLOBAL, LOCAL, SIZES, VOCAB, close, layout, packed_batch, random_model

KIND = config.Decoder(**SIZES, layers=1, block=GLOBAL, dropout=0.2)
HER_KIND = config.Decoder(vocab=VOCAB + 8, embed=24, layers=2, block=LOCAL, dropout=0.2, head=config.Untied())
STUDENT, TEACHER = random_model(KIND, std=0.1), random_model(HER_KIND, seed=1)
BATCH = packed_batch(KIND)


def make(response=config.SoftLabels(3.0), labels=0.25, weight=0.75, at="targets", features=(), chunks=3):
    return Distillation(Prediction(chunks=chunks), response, labels, weight, at, features)


def loss(objective, model, batch, key=None, teacher=TEACHER, call=CALL):
    sums, _ = objective.totals(model, batch, key, call, {"teacher": teacher})
    weights = objective.weights(batch)
    return sum(objective.coefficients[name] * sums[name] / weights[name] for name in sums), sums


def logits(model, batch):
    return np.asarray(model.logits(model(batch.inputs, CALL).hidden, CALL), np.float64)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(batch, temperature, labels, weight, where):
    """Of logits whole, in float64, over the student's vocabulary."""
    ours, theirs = logits(STUDENT, batch), logits(TEACHER, batch)[..., :VOCAB]
    targets = np.asarray(batch.weights, np.float64)
    chosen = np.take_along_axis(log_softmax(ours), np.asarray(batch.targets)[..., None], -1)[..., 0]
    t, s = log_softmax(theirs / temperature), log_softmax(ours / temperature)
    divergence = temperature**2 * (np.exp(t) * (t - s)).sum(-1)
    return labels * -(targets * chosen).sum() / targets.sum() + weight * (where * divergence).sum() / where.sum()


@pytest.mark.parametrize("at", ["targets", "tokens"])
def test_the_loss_by_hand(at):
    where = np.asarray(BATCH.weights if at == "targets" else BATCH.inputs.segments > 0, np.float64)
    got, sums = jax.jit(lambda batch: loss(make(at=at), STUDENT, batch))(BATCH)
    np.testing.assert_allclose(got, by_hand(BATCH, 3.0, 0.25, 0.75, where), rtol=2e-6)
    other = np.asarray(BATCH.inputs.segments > 0 if at == "targets" else BATCH.weights, np.float64)
    assert abs(got / by_hand(BATCH, 3.0, 0.25, 0.75, other) - 1) > 1e-3
    assert sums.keys() == {"cross_entropy", "divergence"}


@pytest.mark.parametrize("labels", [0.0, 0.25], ids=["alone", "with labels"])
def test_chunked_is_whole(labels):
    """One loss, whose gradient is taken with it, and two."""
    whole, chunked = (
        jax.jit(jax.value_and_grad(lambda m, o=make(labels=labels, chunks=n): loss(o, m, BATCH), has_aux=True))(
            STUDENT
        )
        for n in (1, 5)
    )
    np.testing.assert_allclose(chunked[0][0], whole[0][0], rtol=1e-6)
    close(chunked[1], whole[1])
    np.testing.assert_allclose(chunked[0][1]["cross_entropy"], whole[0][1]["cross_entropy"], rtol=1e-6)


def test_no_gradient_reaches_the_teacher_and_it_drops_nothing():
    """The student has no dropout here; the control gives it the teacher's place."""
    key, still = jax.random.key(3), random_model(dataclasses.replace(KIND, dropout=0.0), std=0.1)
    gradient = jax.jit(jax.grad(lambda t: loss(make(), still, BATCH, key, teacher=t)[0]))(TEACHER)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))

    @jax.jit
    def run(model):
        return [loss(make(), model, BATCH, k)[1]["divergence"] for k in (None, key)]

    kept, dropped = run(still), run(STUDENT)
    np.testing.assert_allclose(kept[1], kept[0], rtol=1e-6)
    assert abs(dropped[1] / dropped[0] - 1) > 1e-3


@functools.cache
def stepped(micro_batches=1, spread=False, at="tokens"):
    """(Gradient, metrics) of a step with dropout, as descent at rate 1 leaves it."""
    batch = dataclasses.replace(BATCH, weights=BATCH.weights * jnp.array([9.0, 1, 8, 1, 7, 1, 6, 1])[:, None])
    where = layout(fsdp=2, tensor=2) if spread else CALL.layout
    optimizer, objective = optax.sgd(1.0), make(config.Jsd(0.3), at=at)
    model, frozen = partition(STUDENT, lambda *_: True)
    state = State(jnp.int32(0), model, {"model": frozen, "teacher": TEACHER}, optimizer.init(model))
    call = dataclasses.replace(CALL, layout=where)
    step = jax.jit(make_step(objective, optimizer, call, seed=1, micro_batches=micro_batches))
    if spread:
        batch = jax.tree.map(lambda leaf: jax.device_put(leaf, where.sharding(("row",), leaf.shape[:1])), batch)
        new, metrics = step(jax.device_put(state, place(state, optimizer, where)), batch)
    else:
        new, metrics = step(state, batch)
    return jax.device_get((jax.tree.map(lambda a, b: a - b, state.model, jax.device_get(new.model)), metrics))


@pytest.mark.nightly
def test_micro_batches_are_the_batch():
    """As in `test_feature.py`, with features too."""
    whole, split = stepped(), stepped(2)
    close(split[0], whole[0], 2e-6)
    for name in ("loss", "cross_entropy", "divergence"):
        np.testing.assert_allclose(split[1][name], whole[1][name], rtol=2e-6, err_msg=name)


@pytest.mark.nightly
def test_eight_devices_step_as_one():
    """Tables of two sizes, spread over two devices each."""
    whole, spread = stepped(), stepped(2, spread=True)
    close(spread[0], whole[0])
    np.testing.assert_allclose(spread[1]["loss"], whole[1]["loss"], rtol=2e-6)


def padded(batch: Batch, more: int) -> Batch:
    def pad(x):
        return jnp.pad(x, ((0, 0), (0, more))) if x.ndim == 2 else x

    return jax.tree.map(pad, batch)


def unpacked(batch: Batch) -> Batch:
    """Each document in a row of its own, from its beginning."""
    rows = []
    for row in range(batch.targets.shape[0]):
        for segment in (1, 2):
            places = np.flatnonzero(np.asarray(batch.inputs.segments[row]) == segment)

            def take(x, places=places, row=row):
                return np.pad(np.asarray(x[row])[places], (0, batch.targets.shape[1] - len(places)))

            rows.append(
                [take(x) for x in (*jax.tree.leaves(batch.inputs), batch.targets, batch.weights, batch.documents)]
            )
    ids, segments, positions, targets, weights, documents = (
        jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True)
    )
    inputs = Tokens(ids, jnp.minimum(segments, 1), positions)
    return Batch(inputs, targets, weights, jnp.arange(len(rows)), documents)


def test_padding_and_packing_change_nothing():
    """The divergence at tokens, and labels at targets."""
    run = jax.jit(lambda batch: loss(make(at="tokens"), STUDENT, batch))
    value, sums = run(BATCH)
    for other in (padded(BATCH, 16), unpacked(BATCH)):
        got, others = run(other)
        np.testing.assert_allclose(got, value, rtol=2e-6)
        for name in sums:
            np.testing.assert_allclose(others[name], sums[name], rtol=2e-6)


@pytest.mark.nightly
def test_logits_never_exist_whole():
    """As of `objectives.prediction`, of either model."""
    vocab = 128 * 1024
    kind = config.Decoder(vocab=vocab, embed=16, layers=1, block=GLOBAL)
    model = jax.eval_shape(lambda: build_model(kind, jax.random.key(0)))
    batch = jax.eval_shape(lambda: packed_batch(kind, rows=4, length=256))

    def largest(chunks, labels):
        objective = make(chunks=chunks, labels=labels)
        run = jax.grad(lambda m, t, b: loss(objective, m, b, teacher=t)[0])
        text = jax.jit(run).lower(model, model, batch).compile().as_text()
        return max(np.prod([int(d) for d in shape.split(",")]) for shape in re.findall(r"f32\[([\d,]+)\]", text))

    limit = 4 * 256 * vocab // 4
    assert max(largest(8, 0.0), largest(8, 0.5)) < limit
    assert largest(1, 0.0) >= 4 * limit, "the control: one chunk holds them whole"


# --- other objectives on labels ----------------------------------------------------------------------------

ENCODER = config.Encoder(
    **SIZES,
    layers=2,
    block=config.Block(config.Attention(4, 4, 8), config.Plain(32), config.PostNorm()),
    position=config.Learned(length=32),
    classifier=config.Classifier(3),
    types=2,
)


def special():
    return Special(VOCAB, 0, 2, 3, (("<mask>", 1),))


def test_both_see_the_same_hidden_tokens():
    """A student that is its teacher has nothing to learn; of a text that only one sees hidden it would."""
    objective = build(config.Distillation(config.MaskedLm(rate=0.4), at="tokens"), ENCODER, special)
    model, batch = random_model(ENCODER), packed_batch(ENCODER)
    prepared = objective.prepare(batch, jax.random.key(0))
    run = jax.jit(lambda teacher: loss(objective, model, prepared, teacher=teacher)[1])
    sums = run(model)
    np.testing.assert_allclose(sums["divergence"], 0.0, atol=1e-4)
    assert "masked_lm" in sums
    assert run(random_model(ENCODER, 1))["divergence"] > 10
    shown, hidden = (model.logits(model(one.inputs, CALL).hidden, CALL) for one in (batch, prepared))
    assert np.abs(shown - hidden).max() > 0.1


def test_labels_of_texts():
    """Softened scores of the labels at the tokens that have one."""
    objective = build(config.Distillation(config.Classification(), config.SoftLabels(2.0)), ENCODER, special)
    model, teacher = random_model(ENCODER), random_model(ENCODER, 1)
    batch = packed_batch(ENCODER)
    starts = np.asarray((batch.inputs.positions == 0) & (batch.inputs.segments > 0))
    labels = jnp.where(starts, jnp.asarray(np.random.default_rng(0).integers(0, 3, starts.shape)), -1)
    batch = objective.prepare(batch.replace(extra={"labels": labels}), jax.random.key(0))
    _, sums = loss(objective, model, batch, teacher=teacher)

    def scores(one):
        return np.asarray(one.classify(one(batch.inputs, CALL).hidden, CALL), np.float64)[starts] / 2

    t, s = log_softmax(scores(teacher)), log_softmax(scores(model))
    np.testing.assert_allclose(sums["divergence"], 4 * (np.exp(t) * (t - s)).sum(), rtol=1e-5)
    assert float(objective.weights(batch)["divergence"]) == starts.sum()
    few = dataclasses.replace(ENCODER, classifier=config.Classifier(2))
    with pytest.raises(
        UsageError, match=r"teacher scores 2 labels and the student 3: set model\.classifier\.labels"
    ):
        jax.eval_shape(lambda: loss(objective, model, batch, teacher=random_model(few)))


def test_a_teacher_is_needed():
    with pytest.raises(UsageError, match="distillation needs a teacher"):
        make().totals(STUDENT, BATCH, None, CALL, {})
