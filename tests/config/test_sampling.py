"""How prompts are read by a model of an experiment."""

import dataclasses

import pytest

from jaxlm import config
from jaxlm.config.sampling import Options, as_trained
from tests.base import experiment

TWO_SIDED = config.EncoderDecoder(vocab=4096)


@pytest.mark.parametrize(
    ("changes", "reading"),
    [
        ({}, "causal"),
        ({"objective": config.PrefixLm()}, "prefix"),
        ({"objective": config.PrefixLm(), "model": TWO_SIDED}, "causal"),
    ],
)
def test_prompts_are_read_as_they_were_in_training(changes, reading):
    tree = dataclasses.replace(experiment(), **changes)
    assert as_trained(Options(tokens=5), tree) == Options(tokens=5, reading=reading)
    for told in ("causal", "prefix"):
        assert as_trained(Options(reading=told), tree) == Options(reading=told)
