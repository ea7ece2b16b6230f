"""Which runs another one may take up: no steps are taken here, `tests/drills/test_after.py` takes them."""

import dataclasses

import pytest

from jaxlm.config import Custom
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.overrides import apply
from jaxlm.runs.directory import open_run, release
from jaxlm.train.after import refuse_other
from tests.base import experiment

BASE = experiment()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_changed_objective_has_other_steps(tmp_path):
    source = tmp_path / "a_loss.py"
    source.write_text("def objective(): ...\n")
    trunk = dataclasses.replace(BASE, objective=Custom("a_loss:objective"))
    release(open_run(trunk, "trunk"))
    branch = apply(trunk, ["--train.steps", "900"])
    with pytest.raises(Failure, match="no checkpoint yet"):  # all else is in order
        refuse_other(branch, "trunk")
    source.write_text("def objective(): return 1\n")
    with pytest.raises(UsageError, match=r"steps are those of another experiment:\n.*source of the objective"):
        refuse_other(branch, "trunk")


def test_other_fields_have_other_steps():
    release(open_run(BASE, "trunk"))
    with pytest.raises(UsageError, match=r"train\.seed: 0 there, 1 here"):
        refuse_other(apply(BASE, ["--train.seed", "1"]), "trunk")
