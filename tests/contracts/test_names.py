"""The names, shapes and dtypes of parameters are what checkpoints are made of: they change only on purpose."""

import json
from pathlib import Path

from jaxlm.layers.names import flatten

GOLDEN = Path(__file__).with_name("names.json")


def recorded(model):
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in flatten(model).items()}


def test_names_are_as_recorded(kind, make):
    assert recorded(make(kind)) == json.loads(GOLDEN.read_text())[kind]


def test_names_of_positions_are_as_recorded(position, make):
    assert recorded(make(position)) == json.loads(GOLDEN.read_text())[position]
