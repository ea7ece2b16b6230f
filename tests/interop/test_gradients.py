"""Gradients of GPT-2, LLaMA, Gemma 2 and Mixtral are those of torch, read by the name table as weights are."""

import copy
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.interop import exchange
from jaxlm.layers import norms
from jaxlm.layers.contracts import Batch
from jaxlm.layers.names import flatten
from jaxlm.objectives.prediction import Prediction
from jaxlm.parallel.layout import single_device
from tests.tiny import CALL, close, tokens

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.interop import references  # noqa: E402 (it imports torch)

OBJECTIVE = Prediction()
TOLERANCE = 1e-4


def targets(vocab):
    return np.random.default_rng(1).integers(0, vocab, (references.ROWS, references.LENGTH))


def theirs(reference, vocab, directory):
    """Gradients of the mean cross-entropy: written as weights of their names, read as weights of ours."""
    reference.zero_grad()
    logits = reference(torch.tensor(references.ids(vocab))).logits
    wanted = torch.tensor(targets(vocab)).flatten()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted)
    loss.backward()
    gradients = copy.deepcopy(reference)
    with torch.no_grad():
        for parameter, one in zip(gradients.parameters(), reference.parameters(), strict=True):
            parameter.copy_(one.grad)
    gradients.save_pretrained(directory)
    return loss.item(), exchange.load(directory, single_device())[1]


def ours(model, vocab, change=lambda model: model):
    inputs = tokens(references.ids(vocab))
    rows = jnp.arange(references.ROWS, dtype=jnp.int32)
    to = jnp.asarray(targets(vocab), jnp.int32)
    batch = Batch(inputs, to, jnp.ones(to.shape, jnp.float32), rows, inputs.segments)

    def loss(model):
        sums, _ = OBJECTIVE.totals(change(model), batch, None, CALL, {})
        return sums["cross_entropy"] / to.size

    return jax.jit(jax.value_and_grad(loss))(model)


def detached():
    """The statistics of every norm are taken for constants: the same loss, other gradients."""
    return types.SimpleNamespace(rsqrt=lambda x: jax.lax.stop_gradient(jax.lax.rsqrt(x)))


def scaled(model):
    """Scores are divided by a root that is 1 % off."""

    def change(block):
        kind = block.attention.config
        kind = dataclasses.replace(kind, scale=1.01 * (kind.scale or kind.head**-0.5))
        return block.replace(attention=block.attention.replace(config=kind))

    return model.replace(blocks=model.blocks.replace(period=tuple(map(change, model.blocks.period))))


FAMILIES = ("llama", "gpt2", "gemma2", "mixtral")
AT_NIGHT = [FAMILIES[0], *(pytest.param(case, marks=pytest.mark.nightly) for case in FAMILIES[1:])]


@pytest.mark.parametrize("case", FAMILIES)
def test_gradients_are_those_of_torch(published, tmp_path, case):
    directory, reference = published(case)
    told, model = exchange.load(directory, single_device())
    loss, wanted = theirs(reference, told.vocab, tmp_path)
    value, gradients = ours(model, told.vocab)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    close(gradients, wanted, TOLERANCE)
    assert all(np.any(leaf) for leaf in flatten(wanted).values())


@pytest.mark.parametrize("case", AT_NIGHT)
def test_a_wrong_gradient_is_seen(published, tmp_path, monkeypatch, case):
    directory, reference = published(case)
    told, model = exchange.load(directory, single_device())
    loss, wanted = theirs(reference, told.vocab, tmp_path)
    with pytest.raises(AssertionError, match="off by"):
        close(ours(model, told.vocab, scaled)[1], wanted, 10 * TOLERANCE)
    monkeypatch.setattr(norms, "lax", detached())
    value, wrong = ours(model, told.vocab)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    with pytest.raises(AssertionError, match="off by"):
        close(wrong, wanted, 10 * TOLERANCE)
