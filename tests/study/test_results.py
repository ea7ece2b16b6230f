"""What is read from finished runs, and which of them are not compared."""

import dataclasses
import json

import pytest

from jaxlm.config.codec import to_json
from jaxlm.config.errors import UsageError
from jaxlm.runs.directory import CONFIG, DONE
from jaxlm.study.plan import cells, plan
from jaxlm.study.results import refuse_unlike, result
from tests.study.studies import study

CELLS = cells(study(), plan(study()))
FACTS = {"tokenizer": "t", "data": "rows", "text": {"train_tokens": 5}}


def finished(root, cell, together=1, tasks=None, **metrics):
    """The directory of a run that took all its steps."""
    path = root / cell.folder
    path.mkdir(parents=True)
    (path / CONFIG).write_text(json.dumps({"hash": "", "experiment": to_json(cell.experiment)}))
    last = {"kind": "evaluate", "step": cell.experiment.train.steps, "attempt": 1, "time": 0.0, **metrics}
    asked = {"kind": "tasks", "step": cell.experiment.train.steps, "attempt": 1, "time": 0.0, **(tasks or {})}
    clock = {"kind": "event", "event": "goodput", "step": 1, "attempt": 1, "time": 0.0, "seconds": {"step": 40.0}}
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (last, clock, asked)))
    (path / "manifest.json").write_text(json.dumps({"together": {"runs": together}} if together > 1 else {}))
    (path / DONE).touch()


def test_a_run_that_ends_as_no_number_has_failed(tmp_path):
    finished(tmp_path, CELLS[0], loss=None, bits_per_byte=2.0)
    assert result(CELLS[0], tmp_path, "loss", failed=False).status == "failed"
    assert result(CELLS[0], tmp_path, "bits_per_byte", failed=False).value == 2.0
    with pytest.raises(UsageError, match=r"records no 'accuracy'.*metric can be 'bits_per_byte'"):
        result(CELLS[0], tmp_path, "accuracy", failed=False)


def test_a_task_can_be_the_metric(tmp_path):
    finished(tmp_path, CELLS[0], loss=1.0, tasks={"blimp/accuracy": [0.78, 0.7, 0.8]})
    assert result(CELLS[0], tmp_path, "blimp/accuracy", failed=False).value == 0.78
    assert result(CELLS[0], tmp_path, "loss", failed=False).value == 1.0


def test_runs_of_one_program_share_its_seconds(tmp_path):
    finished(tmp_path, CELLS[0], loss=1.0)
    finished(tmp_path, CELLS[1], together=5, loss=1.0)
    whole, share = (result(cell, tmp_path, "loss", failed=False).seconds for cell in CELLS[:2])
    assert whole == 5 * share > 0


def results(tmp_path, **changes):
    """Of the first seed's arms and of the second's, the last with other facts."""
    for cell in CELLS[:3]:
        finished(tmp_path, cell, loss=1.0)
    found = [result(cell, tmp_path, "loss", failed=False) for cell in CELLS[:3]]
    rows = [{"data": f"rows of {one.cell.seed}"} for one in found]
    facts = [FACTS | each for each in rows]
    facts[1] |= changes
    return [dataclasses.replace(one, facts=each) for one, each in zip(found, facts)]


def test_runs_of_the_same_files_are_compared(tmp_path):
    refuse_unlike(results(tmp_path))


@pytest.mark.parametrize(
    "changes", [{"tokenizer": "other"}, {"data": "other rows"}, {"text": {"train_tokens": 6}}], ids=str
)
def test_runs_of_files_that_changed_are_not(tmp_path, changes):
    with pytest.raises(UsageError, match=f"same {next(iter(changes))}: files of data or tokenizer have changed"):
        refuse_unlike(results(tmp_path, **changes))
