"""The loss on answers: the same whether conversations share rows or have one each."""

import jax
import numpy as np
import pytest

from jaxlm.config import BestFit
from jaxlm.data import dataset, held_out
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.objectives.prediction import Prediction
from tests.tiny import CALL, KINDS, VOCAB, random_model

LENGTHS = (9, 14, 5, 11, 7, 16, 3, 8)


def batch_of(data, rows, length=16):
    found = held_out(data, BestFit(), batch=rows, length=length)
    assert found.steps == 1
    columns = found.batch(0)
    inputs = Tokens(columns["ids"], columns["segments"], columns["positions"])
    return Batch(inputs, columns["targets"], columns["weights"], columns["rows"], columns["documents"])


def sums(name, batch):
    objective = Prediction(chunks=2)
    found, _ = jax.jit(lambda m, b: objective.totals(m, b, None, CALL, {}))(random_model(KINDS[name]), batch)
    return float(found["cross_entropy"]), float(objective.weights(batch)["cross_entropy"])


@pytest.mark.parametrize("name", ["decoder", "rwkv4"])
def test_packed_is_alone(name):
    draw = np.random.default_rng(0)
    documents = [draw.integers(1, VOCAB, n) for n in LENGTHS]
    marks = [np.arange(n) >= draw.integers(1, n) for n in LENGTHS]
    packed = dataset.in_memory(documents, bytes=1, vocab=VOCAB, pad=0, predicted=marks)
    alone = [dataset.in_memory([d], bytes=1, vocab=VOCAB, pad=0, predicted=[m]) for d, m in zip(documents, marks)]
    together = batch_of(packed, rows=5)
    wanted = np.sum([sums(name, batch_of(one, rows=1)) for one in alone], axis=0)
    got = sums(name, together)
    assert got[1] == wanted[1] == sum(map(np.sum, marks))
    assert abs(got[0] - wanted[0]) <= 2e-5 * wanted[0]
    # The control: as one document a row, a conversation reads those before it.
    inputs = together.inputs.replace(segments=np.minimum(together.inputs.segments, 1))
    assert abs(sums(name, together.replace(inputs=inputs))[0] - wanted[0]) > 1e-3 * wanted[0]


def test_targets_that_are_not_said_do_not_matter():
    data = dataset.in_memory(
        [np.arange(1, 15)], bytes=1, vocab=VOCAB, pad=0, predicted=[[0] * 6 + [1] * 4 + [0] * 4]
    )
    batch = batch_of(data, rows=1)
    other = np.where(batch.weights == 1, batch.targets, 7)
    assert sums("decoder", batch) == sums("decoder", batch.replace(targets=other))
    assert sums("decoder", batch)[1] == 4
