"""Experiments survive JSON, and their hashes see exactly what is computed."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm import config as c
from jaxlm.config import paths
from jaxlm.config.codec import difference, from_json, sources, to_json, what, what_hash, whole_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.load import load_experiment
from tests.base import experiment

BASE = experiment()
OTHERS = {"benchmarks", "evaluations", "ablations"}
FILES = [str(path) for path in Path("experiments").rglob("*.py") if not OTHERS & set(path.parts)]


def any_value(hint):
    """A strategy for any value that a field of this type may hold, written apart from the codec."""
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if paths.element(hint):
        return st.lists(any_value(paths.element(hint)), max_size=2).map(tuple)
    if len(paths.alternatives(hint)) > 1:
        return st.one_of(*map(any_value, paths.alternatives(hint)))
    if dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: any_value(inner) for name, inner in paths.hints(hint).items()})
    plain = {int: st.integers(), str: st.text(), bool: st.booleans(), type(None): st.none()}
    return plain[hint] if hint in plain else st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(any_value(c.Experiment))
def test_any_experiment_survives_json(tree):
    assert from_json(json.loads(json.dumps(to_json(tree)))) == tree
    assert difference(tree, tree) == []


@pytest.mark.parametrize("name", FILES)
def test_shipped_experiments_survive_json(name):
    tree = load_experiment(name)
    assert from_json(json.loads(json.dumps(to_json(tree)))) == tree


def test_union_members_carry_their_class():
    tree = to_json(BASE)
    assert tree["model"]["class"] == "Decoder"
    assert tree["model"]["position"] == {
        "class": "Rope",
        "theta": 10000.0,
        "fraction": 1.0,
        "pairs": "halves",
        "scaling": {"class": "Unscaled"},
    }
    assert "class" not in tree["train"]


def test_a_field_that_is_new_changes_no_hash():
    """Fields at their defaults are left out, at every depth; a member that is not the usual one is named."""
    tree = dataclasses.replace(BASE, model=c.Decoder(position=c.Rope(theta=5.0), norm=c.LayerNorm()))
    told = what(tree)["experiment"]
    norm, position = {"class": "LayerNorm"}, {"class": "Rope", "theta": 5.0}
    assert told["model"] == {"class": "Decoder", "position": position, "norm": norm}
    assert "where" not in told


def test_the_hash_sees_everything_outside_where_and_nothing_inside():
    seen = {what_hash(BASE)}
    for path, leaf in paths.leaves(BASE).items():
        other = {int: 12345, float: 0.123, str: "other", tuple: ("x",), type(None): 3}[type(leaf.value)]
        changed = replaced(BASE, path, other)
        assert difference(BASE, changed)[0][0] == path
        assert (what_hash(changed) == what_hash(BASE)) is path.startswith("where."), path
        assert whole_hash(changed) != whole_hash(BASE)
        seen.add(what_hash(changed))
    outside = [path for path in paths.leaves(BASE) if not path.startswith("where.")]
    assert len(seen) == len(outside) + 1


def replaced(tree, path, value):
    name, _, rest = path.partition(".")
    return dataclasses.replace(tree, **{name: replaced(getattr(tree, name), rest, value) if rest else value})


def test_equal_experiments_have_equal_hashes():
    whole = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, position=c.Rope(theta=10_000)))
    assert type(whole.model.position.theta) is int
    assert whole == BASE
    assert what_hash(whole) == what_hash(BASE)


def test_a_switch_alone_changes_the_hash():
    one = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, embedding=c.Normed()))
    two = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, embedding=c.Scaled()))
    assert what_hash(one) != what_hash(two)
    assert difference(one, two) == [("model.embedding", "Normed", "Scaled")]


def test_the_source_of_a_custom_objective_is_hashed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_loss.py"
    file.write_text("def objective(): ...\n")
    tree = dataclasses.replace(BASE, objective=c.Custom("my_loss:objective"))
    before = what_hash(tree)
    assert list(sources(tree)) == ["my_loss:objective"]
    file.write_text("def objective(): return 1\n")
    assert what_hash(tree) != before
    for bad in ("my_loss", "no_such_module:objective", "no.such:objective"):
        with pytest.raises(UsageError, match=bad.split(":")[0]):
            what_hash(dataclasses.replace(BASE, objective=c.Custom(bad)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["model", "class"], "Decodr", "experiment.model: unknown class 'Decodr', expected one of Decoder"),
        (["model", "embd"], 3, "experiment.model: Decoder has no field 'embd'"),
        (["train", "steps"], "many", "experiment.train.steps: 'many' does not fit, expected an integer"),
        (["train"], 3, "experiment.train: 3 does not fit"),
        (["precision"], "fp8", "experiment.precision: 'fp8' does not fit, expected one of float32"),
    ],
)
def test_a_damaged_file_is_a_failure(path, value, message):
    tree = to_json(BASE)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(Failure, match=message):
        from_json(tree)


def test_a_file_from_before_a_field_existed():
    tree = to_json(BASE)
    del tree["train"]["ema"]
    assert from_json(tree) == BASE
