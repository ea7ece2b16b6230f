"""`--init RUN`: another run's parameters, known by what they are and not by where they lie."""

import json
import shutil

import pytest

from jaxlm.config.codec import what_hash
from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from tests.drills.drill import TINY, end

STILL = ("--train.steps", "1", "--optimizer.schedule.peak", "0")
"""One step that changes nothing."""


@pytest.fixture(scope="module")
def source(ground, straight):
    """(Name, digest of the parameters) of a finished run."""
    run = straight()
    return run, ground.manifest(run)["parameters"]


@pytest.mark.nightly
def test_starts_where_the_other_ended(ground, straight, source):
    run, digest = source
    finished = ground.finish("initial", "--init", run, *STILL)
    assert f"initial: '' -> {run}@{digest}" in finished.out
    before, after = ground.outcome(run)[1], ground.outcome("initial")[1]
    assert after["evaluate", 1]["bits_per_byte"] == before["evaluate", 60]["bits_per_byte"]
    assert ground.manifest("initial")["parameters"] == digest
    config = json.loads((ground.path / "initial/config.json").read_text())
    assert config["experiment"]["initial"] == f"{run}@{digest}"

    # The same parameters elsewhere are the same experiment; others are not.
    shutil.copytree(ground.path / run, ground.path / "elsewhere")
    again = ground.finish("initial", "--init", "elsewhere", *STILL)
    assert "initial is finished" in again.out
    shutil.rmtree(ground.path / "elsewhere/checkpoints/60")
    refused = ground.finish("initial", "--init", "elsewhere", *STILL, code=2)
    assert f"initial: '{run}@{digest}' there, 'elsewhere@" in refused.err


def test_other_parameters_than_named_are_refused(ground, source):
    run, digest = source
    wrong = digest[::-1]
    refused = ground.finish("wrong", "--init", f"{run}@{wrong}", *STILL, code=1)
    assert f"{run} holds the parameters {digest} at step 60, not {wrong}" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_no_such_run(ground):
    for name, code, message in (("missing", 2, "no such run"), ("text", 1, "has no checkpoint yet")):
        refused = end(ground.train("none", "--init", name)).expect(code)
        assert message in refused.err
        assert not (ground.path / "none").exists()


def test_the_digest_is_what_is_hashed():
    def hashed(initial: str) -> str:
        return what_hash(apply(load_experiment(str(TINY)), ["--initial", initial]))

    one, other = "0123456789abcdef", "0123456789abcde0"
    assert hashed(f"a@{one}") == hashed(f"gs://b/c@{one}")
    assert len({hashed(""), hashed("a"), hashed(f"a@{one}"), hashed(f"a@{other}"), hashed("a@b")}) == 5
