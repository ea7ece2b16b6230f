"""Tasks of likelihood with tiny models of bytes: ties, and prompts longer than the model reads."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm.config import LastWord, Records
from jaxlm.evaluate.ask import ask
from tests.evaluate.subjects import tiny


@pytest.fixture
def write(tmp_path):
    def rows(*items):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
        return Records("rows.jsonl")

    return rows


def test_a_model_that_knows_nothing_draws_no_word(tmp_path, write):
    """All tokens are as likely: greedy text is the first of them, and no word."""
    nothing = dataclasses.replace(tiny(), model=jax.tree.map(lambda leaf: 0 * leaf, tiny().model))
    texts = write({"text": "the quick fox"}, {"text": "a dog"})
    metrics = {one.name: one.value for one in ask(LastWord(data=texts), tmp_path).run(nothing).metrics}
    assert metrics["accuracy"] == 0
    assert metrics["loss"] == pytest.approx(np.log(260) * (4 + 4) / 2, rel=1e-5)
