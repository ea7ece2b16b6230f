"""Losses of what is exchanged, as transformers computes them."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.interop import exchange
from jaxlm.layers.contracts import Call
from jaxlm.objectives.build import build
from jaxlm.parallel.layout import single_device
from tests.objectives.test_classification import batch
from tests.objectives.texts import SPECIAL

CALL = Call(single_device(), layers="unroll")


@pytest.mark.parametrize("case", ["bert, pretraining", "bert, sequences"])
def test_losses_of_transformers(case, published):
    torch = pytest.importorskip("torch")
    directory, reference = published(case)
    kind, model = exchange.load(directory, single_device())
    pairs, size = case == "bert, pretraining", kind.classifier.labels
    draw = np.random.default_rng(3)
    docs = {n: np.r_[draw.integers(5, 60, 4 + n), 3, draw.integers(5, 60, 9 - n)] for n in range(6)}
    labels = {n: int(draw.integers(size)) for n in docs}
    rows = batch([[one] for one in docs.items()], 24, labels)
    special = dataclasses.replace(SPECIAL, vocab=kind.vocab)
    masked = config.MaskedLm(0.3, masked=0.9, replaced=0.0)
    objective = build(config.NextSentence(masked) if pairs else config.Classification(), kind, lambda: special)
    rows = objective.prepare(rows, jax.random.key(7))
    totals, _ = jax.jit(lambda model, rows: objective.totals(model, rows, None, CALL, {}))(model, rows)
    weights = objective.weights(rows)
    mine = sum(c * totals[name] / weights[name] for name, c in objective.coefficients.items())

    def tensor(array):
        return torch.tensor(np.asarray(array), dtype=torch.long)

    given = {
        "input_ids": tensor(rows.inputs.ids),
        "attention_mask": tensor(rows.inputs.segments > 0),
        "token_type_ids": tensor(rows.inputs.types),
    }
    told = tensor([labels[n] for n in docs])
    if pairs:
        hidden = np.where(np.asarray(rows.weights) > 0, np.asarray(rows.targets), -100)
        assert (hidden >= 0).sum() > 10
        more = {"labels": tensor(hidden), "next_sentence_label": told}
    else:
        more = {"labels": told}
    with torch.no_grad():
        theirs = reference(**given, **more).loss.item()
        wrong = reference(**given | {"token_type_ids": 1 - given["token_type_ids"]}, **more).loss.item()
    assert float(mine) == pytest.approx(theirs, rel=1e-5)
    assert abs(wrong / theirs - 1) > 1e-3, "the control: types turned around"
