"""Run directories: finished, foreign, of another experiment, moved to another mesh."""

import pytest

from tests.drills.drill import contents, saved
from tests.drills.test_kill import EIGHT


def test_a_finished_run_is_said_to_be_and_untouched(ground, straight):
    run = straight()
    before = contents(ground.path / run)
    again = ground.finish(run)
    assert f"{run} is finished" in again.out
    assert contents(ground.path / run) == before


def test_a_foreign_directory_is_refused(ground):
    (ground.path / "thesis").mkdir()
    (ground.path / "thesis/chapter.tex").write_text("It was a dark and stormy night.")
    before = contents(ground.path / "thesis")
    refused = ground.finish("thesis", code=2)
    assert "thesis is no run and not empty (it has chapter.tex)" in refused.err
    assert contents(ground.path / "thesis") == before


def test_another_experiments_run_is_refused(ground, straight):
    run = straight()
    before = contents(ground.path / run)
    refused = ground.finish(run, "--train.seed", "7", "--model.dropout", "0.2", code=2)
    assert "train.seed: 0 there, 7 here" in refused.err
    assert "model.dropout: 0.1 there, 0.2 here" in refused.err
    assert contents(ground.path / run) == before


@pytest.mark.nightly
def test_where_may_change(ground):
    """One device and two micro-batches, then eight devices and one, and other cadences."""
    run = ground.path / "moved"
    ground.finish("moved", "--train.steps", "20")
    (run / "DONE").unlink()
    assert saved(run) == [10, 20]
    (run / "checkpoints/20").rename(ground.path / "put-aside-20")
    words = ("--train.steps", "20", *EIGHT, "--where.micro_batches", "1", "--where.every.log", "1")
    again = ground.finish("moved", *words, devices=8)
    assert "resumed at step 10" in again.out
    first, second = ground.manifest("moved", 1), ground.manifest("moved", 2)
    spread = [{axis: size for axis, size in one["mesh"].items() if size > 1} for one in (first, second)]
    assert spread == [{}, {"data": 2, "fsdp": 2, "tensor": 2}]
    assert first["what"] == second["what"]
    assert first["whole"] != second["whole"]
