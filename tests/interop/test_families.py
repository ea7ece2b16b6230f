"""Models of every family compute what those of transformers do, and go out as they came in, bit for bit.

Their properties are the rows of README's table: `experiments/benchmarks/families.py`.
"""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.families import known
from jaxlm.interop import exchange
from jaxlm.parallel.layout import single_device
from tests.interop.cases import CASES, ORDINARY, implementation
from tests.interop.controls import controls

README = Path(__file__).parents[2] / "README.md"
WITH_NIGHTLY = [pytest.param(case, marks=() if case in ORDINARY else pytest.mark.nightly) for case in CASES]
TOLERANCE, APART = 2e-5, 2e-3
"""Of max(1, standard deviation of the logits): what two right models differ by at most, a wrong one at least."""


@pytest.fixture
def references():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.interop import references

    return references


def model_type(directory: Path) -> str:
    return json.loads((directory / "config.json").read_text())["model_type"]


@pytest.mark.parametrize("case", WITH_NIGHTLY)
def test_logits_are_those_of_transformers(published, references, record_property, case):
    directory, reference = published(case)
    told, model = exchange.load(directory, single_device())
    wanted = references.theirs(reference, told.vocab)
    unit = max(1.0, float(np.std(wanted)))

    def difference(model) -> float:
        return float(np.abs(references.ours(model, told.vocab) - wanted).max())

    found = {"model_type": model_type(directory), "difference": difference(model), "unit": unit}
    wrong = {what: difference(one) / unit for what, one in controls(model).items()}
    assert found["difference"] <= TOLERANCE * unit
    assert wrong
    assert not {what: far for what, far in wrong.items() if not far > APART}
    for name, value in found.items():
        record_property(name, value)
    record_property("control", min(wrong, key=wrong.get))
    record_property("apart", min(wrong.values()))


@pytest.mark.parametrize("case", WITH_NIGHTLY)
def test_what_goes_out_is_what_came_in(published, references, record_property, tmp_path, case):
    """transformers reads it: every tensor bit for bit, the same logits; and so do we."""
    import torch

    directory, reference = published(case)
    told, model = exchange.load(directory, single_device())
    kind = model_type(directory)
    told = dataclasses.replace(told, dropout=0.1)
    assert exchange.save(told, model, tmp_path / "out", length=128, model_type=kind) == kind
    more = references.without_pooler(type(reference).__name__)
    more["attn_implementation"] = implementation(CASES[case][1])
    again = type(reference).from_pretrained(tmp_path / "out", **more).eval()
    before, after = reference.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    wanted = references.theirs(reference, told.vocab)
    np.testing.assert_array_equal(references.theirs(again, told.vocab), wanted)
    same, ours = exchange.load(tmp_path / "out", single_device())
    assert same == dataclasses.replace(told, dropout=0.0)
    jax.tree.map(np.testing.assert_array_equal, ours, model)
    record_property("model_type", kind)
    record_property("reload", "bitwise")


def rows(text: str) -> dict[str, list[str]]:
    """The rows of README's table: model_type -> configurations, difference, of std, control, reload."""
    block = text.split("<!-- families -->")[1].split("<!-- /families -->")[0]
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in block.splitlines() if line.startswith("| `")]
    return {name.strip("`"): rest for name, *rest in cells}


def test_every_family_has_a_row():
    """Of as many configurations as are compared, within the tolerance, its controls without."""
    found = rows(README.read_text())
    assert found.keys() == known.FAMILIES.keys()
    # What transformers calls a class is a model_type without its underscores and dashes.
    compared = Counter(kind.lower() for kind, _ in CASES.values())
    for name, (configurations, _, difference, control, reload) in found.items():
        assert int(configurations) == compared[re.sub("[_-]", "", name.removesuffix("_text"))] > 1, name
        assert float(difference) <= TOLERANCE < APART < float(control.split()[0]), name
        assert reload == "bitwise", name


def test_a_row_that_is_missing_is_seen():
    text = README.read_text()
    assert "bloom" not in rows(re.sub(r"\| `bloom`.*\n", "", text))
    with pytest.raises(IndexError):
        rows(text.replace("<!-- families -->", ""))
