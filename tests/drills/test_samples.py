"""The samples of a run say what the model thought of them, whatever format it was trained in."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import PRECISIONS
from jaxlm.layers.logprob import log_probability
from jaxlm.train.load import load_run
from tests.tiny import tokens


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.nightly
def test_log_probabilities_are_those_of_the_full_forward(ground, precision):
    run = ground.path / f"sampled-{precision}"
    ground.finish(run.name, "--precision", precision, "--train.steps", "5", "--samples.tokens", "40")
    model, tokenizer, call = load_run(str(run))
    call = dataclasses.replace(call, precision=PRECISIONS["float32"])
    (sample,) = json.loads((run / "samples.json").read_text())
    ids = np.array(sample["ids"])
    assert tokenizer.decode(ids) == sample["text"]
    hidden = model(tokens(ids[None]), call).hidden
    again, _ = log_probability(model.logits(hidden, call)[:, :-1], jnp.asarray(ids[None, 1:]), call.layout)
    drawn = [i for i, value in enumerate(sample["log_probabilities"]) if value is not None]
    assert len(drawn) > 20
    saved = np.array([sample["log_probabilities"][i] for i in drawn])
    np.testing.assert_allclose(saved, np.asarray(again)[0, np.array(drawn) - 1], atol=1e-4)
