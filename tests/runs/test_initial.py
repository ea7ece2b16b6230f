"""What an experiment takes of the run that it starts from."""

import dataclasses

import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.surgery import Cut
from jaxlm.runs import directory
from jaxlm.runs.initial import settled, taken
from tests.train.tiny import experiment

ASKING = dataclasses.replace(
    experiment(), model=config.OfInitial(), tokenizer=config.OfInitial(), quantization=config.OfInitial()
)


@pytest.fixture
def run(tmp_path):
    theirs = dataclasses.replace(experiment(), quantization=config.Aware())
    directory.release(directory.open_run(theirs, str(tmp_path / "theirs")))
    return str(tmp_path / "theirs")


def test_what_is_asked_for_is_theirs(run):
    found = taken(dataclasses.replace(ASKING, initial=f"{run}@0123456789abcdef"))
    assert found.model == experiment().model
    assert found.quantization == config.Aware()
    assert taken(dataclasses.replace(experiment(), initial=run)).quantization == config.NoQuantization()
    with pytest.raises(UsageError, match="initial nowhere: no such run or model"):
        taken(dataclasses.replace(ASKING, initial="nowhere"))
    nothing = dataclasses.replace(experiment(), initial="nowhere")
    assert taken(nothing) == nothing


def test_a_model_of_theirs_is_cut(run):
    """One that is written out is what it says, as a teacher's student may have been cut before."""
    whole = taken(dataclasses.replace(ASKING, initial=run))
    changed = dataclasses.replace(whole, cut=Cut(layers=(1,), width=8))
    small = settled(ASKING, changed).model
    assert (small.layers, small.block.mlp.width) == (1, 8)
    assert settled(experiment(), changed) == changed
    assert settled(ASKING, whole) == whole
