"""The names, shapes and dtypes of parameters are what checkpoints are made of: they change only on purpose."""

import json
from pathlib import Path

from jaxlm.layers.names import flatten

GOLDEN = Path(__file__).with_name("names.json")


def test_names_are_as_recorded(kind, make):
    found = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in flatten(make(kind)).items()}
    assert found == json.loads(GOLDEN.read_text())[kind]
