"""The autoregressive objective: whole-model gradients with tied and untied heads, and the memory they need."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.objectives.prediction import Prediction
from jaxlm.quantize.build import quantized
from tests.tiny import CALL, GLOBAL, SIZES, close, packed_batch, random_model

TIED = config.Decoder(**SIZES, layers=1, block=GLOBAL, head=config.Tied(softcap=4.0))
UNTIED = dataclasses.replace(TIED, head=config.Untied())


def loss(objective, model, batch, call=CALL):
    sums, _ = objective.totals(model, batch, None, call, {})
    weights = objective.weights(batch)
    return sum(objective.coefficients[name] * sums[name] / weights[name] for name in sums)


def by_hand(model, batch, z_loss):
    """Logits whole, float64 log-sum-exp."""
    logits = np.asarray(model.logits(model(batch.inputs, CALL).hidden, CALL), np.float64)
    normalizer = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits, np.asarray(batch.targets)[..., None], -1)[..., 0]
    weights = np.asarray(batch.weights, np.float64)
    return (weights * (normalizer - chosen + z_loss * normalizer**2)).sum() / weights.sum()


@pytest.mark.parametrize(("kind", "z_loss"), [(TIED, 0.0), (UNTIED, 0.1)], ids=["tied", "untied"])
def test_chunked_is_whole_and_is_float64(kind, z_loss):
    model, batch = random_model(kind), packed_batch(kind, rows=2)
    whole, chunked = (
        jax.jit(jax.value_and_grad(lambda m, o=Prediction(z_loss, n): loss(o, m, batch)))(model) for n in (1, 5)
    )
    np.testing.assert_allclose(chunked[0], by_hand(model, batch, z_loss), rtol=1e-6)
    close(chunked[1], whole[1])
    assert np.linalg.norm(chunked[1].embedding.kernel) > 0


def test_integer_weights_in_the_head_are_no_obstacle():
    """A quantized head is closed over by the chunks and has no gradient itself."""
    model, batch = random_model(UNTIED), packed_batch(UNTIED, rows=2)
    model = quantized(model, config.Rounded((config.Rule("^head$"),)))

    def run(chunks):
        def of(embedding):
            return loss(Prediction(chunks=chunks), dataclasses.replace(model, embedding=embedding), batch)

        return jax.jit(jax.grad(of))(model.embedding)

    close(run(5), run(1))


def test_bfloat16():
    model, batch = random_model(TIED), packed_batch(TIED, rows=2)
    narrow = dataclasses.replace(CALL, precision=config.PRECISIONS["bfloat16"])
    got, wanted = (
        jax.jit(jax.value_and_grad(lambda m, c=call: loss(Prediction(chunks=5), m, batch, c)))(model)
        for call in (narrow, CALL)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(got[1])} == {jnp.dtype("float32")}, "as the parameters"
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-2)
    close(got[1], wanted[1], 0.05)


def test_what_is_measured_only():
    """The share of targets that are the likeliest token, by hand; the loss and its gradients stay as they are."""
    model, batch = random_model(TIED), packed_batch(TIED, rows=2)
    plain, measured = Prediction(chunks=5), Prediction(chunks=5, measured=("accuracy",))
    (value, sums), gradients = jax.jit(
        jax.value_and_grad(
            lambda m: (loss(measured, m, batch), measured.totals(m, batch, None, CALL, {})[0]), has_aux=True
        )
    )(model)
    wanted = jax.jit(jax.value_and_grad(lambda m: loss(plain, m, batch)))(model)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
    close(gradients, wanted[1])
    best = np.argmax(model.logits(model(batch.inputs, CALL).hidden, CALL), -1)
    hits = np.asarray(batch.weights) * (best == np.asarray(batch.targets))
    assert measured.coefficients["accuracy"] == 0
    np.testing.assert_allclose(sums["accuracy"], hits.sum(), rtol=1e-6)
    right = batch.replace(targets=jnp.asarray(best, jnp.int32))
    sums, _ = measured.totals(model, right, None, CALL, {})
    np.testing.assert_allclose(sums["accuracy"], measured.weights(right)["accuracy"], rtol=1e-6)


LARGEST = re.compile(r"f32\[([\d,]+)\]")


@pytest.mark.parametrize("z_loss", [0.0, 1e-4])
def test_logits_never_exist_whole(z_loss):
    """At a vocabulary of 128k no float32 array of the compiled gradient has a quarter of the logits' elements."""
    vocab, rows, length = 128 * 1024, 4, 256
    kind = config.Decoder(vocab=vocab, embed=16, layers=1, block=GLOBAL)
    model = jax.eval_shape(lambda: build_model(kind, jax.random.key(0)))
    batch = jax.eval_shape(lambda: packed_batch(kind, rows=rows, length=length))

    def largest(chunks):
        objective = Prediction(z_loss, chunks)
        text = jax.jit(jax.grad(lambda m, b: loss(objective, m, b))).lower(model, batch).compile().as_text()
        return max(np.prod([int(d) for d in shape.split(",")]) for shape in LARGEST.findall(text))

    limit = rows * length * vocab // 4
    assert largest(8) < limit
    assert largest(1) >= 4 * limit, "the control: one chunk holds them whole"


def test_build():
    assert build(config.Autoregressive(0.5, 3), TIED) == Prediction(0.5, 3)
    path = "jaxlm.objectives.prediction:Prediction"
    assert build(config.Custom(path), TIED) is Prediction
    for path in ("", "jaxlm.objectives.nothing:here", "jaxlm.objectives.prediction:nothing", "nocolon"):
        with pytest.raises(UsageError, match=r"objective\.path=.*give package\.module:name"):
            build(config.Custom(path), TIED)
