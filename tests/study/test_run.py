"""A study's parts, with processes that only say they have trained."""

import pytest

from jaxlm.config.errors import UsageError
from jaxlm.runs.directory import DONE
from jaxlm.study import run
from jaxlm.study.plan import cells, plan
from tests.study.studies import study


def test_what_is_wrong_with_a_finished_run_ends_the_study(monkeypatch, tmp_path):
    """A metric that runs do not record is known after the first of them, or of those that are there."""
    asked = study(seeds=(0, 1))
    todo = run.parts(cells(asked, plan(asked)), together=False)
    by_name = {part.name: part.cells[0] for part in todo}
    trained = []

    def child(words, log, say):
        cell = by_name[words[-1]]
        trained.append(cell.name)
        (tmp_path / cell.folder).mkdir(parents=True)
        (tmp_path / cell.folder / DONE).touch()
        return 0, "done"

    def check(cell):
        raise UsageError(f"{cell.name} records no such metric")

    monkeypatch.setattr(run, "_child", child)
    for _ in range(2):
        with pytest.raises(UsageError, match=f"{todo[0].name} records no such metric"):
            run.run_all(todo, tmp_path, [], lambda line: None, check)
        assert trained == [todo[0].name]
    assert not run.run_all(todo, tmp_path, [], lambda line: None, lambda cell: None).failed
    assert trained == [part.name for part in todo]
