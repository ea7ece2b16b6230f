"""Tasks of likelihood with tiny models of bytes: ties, and prompts longer than the model reads."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm.config import Choices, LastWord, Records
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


def test_prompts_that_are_cut_are_counted(tmp_path, write):
    """Of choices each question once, however many answers it has."""
    rows = write({"q": "why? " * 20, "a": 0}, {"q": "why?", "a": 1})
    said = ("1 of 2 prompts were longer than the model reads, and were cut on the left",)
    task = Choices(data=rows, prompt="{q}", choices=("yes", "no", "perhaps"), answer="{a}")
    assert ask(task, tmp_path).run(tiny()).notes == said
    assert ask(LastWord(data=rows, text="{q} so"), tmp_path).run(tiny()).notes == said
    short = write({"q": "why?", "a": 1})
    assert ask(dataclasses.replace(task, data=short), tmp_path).run(tiny()).notes == ()
    assert ask(LastWord(data=short, text="{q} so"), tmp_path).run(tiny()).notes == ()
