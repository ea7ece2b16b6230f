"""What a report is made from: all that a run directory holds, read once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure
from jaxlm.config.experiment import Experiment
from jaxlm.runs.directory import read_experiment, status
from jaxlm.runs.files import explained
from jaxlm.runs.goodput import breakdown
from jaxlm.runs.journal import read_metrics
from jaxlm.runs.report.text import number, numbers

Record = dict[str, Any]
Points = Float[np.ndarray, " n"]
POINTS = 240
"""Most points of a line; where there are more records a line is means, in a band from least to greatest."""


@dataclass(frozen=True)
class Content:
    """A run as it was read; what a run does not have yet is empty."""

    path: epath.Path
    experiment: Experiment
    hash: str
    status: str
    train: list[Record]
    evaluate: list[Record]
    telemetry: list[Record]
    tasks: list[Record]
    """Of each metric the value and its interval's ends."""
    resumes: list[int]
    """Steps at which later attempts went on."""
    seconds: dict[str, float]
    """Wall time by activity over all attempts."""
    samples: list[Record]
    data: Record
    manifest: Record
    attempts: list[Record]

    @property
    def step(self) -> int:
        """Steps taken, as far as the journal knows."""
        return max((one["step"] for one in [*self.train, *self.evaluate]), default=0)

    @property
    def complete(self) -> bool:
        """Whether all steps were taken; the mark DONE comes only after the report."""
        return self.status == "finished" or self.step >= self.experiment.train.steps

    @property
    def baselines(self) -> dict[str, float]:
        """Bits per byte of the held-out text by method."""
        found = [self.data, *self.evaluate]
        return next((each for one in found if (each := numbers(one.get("baselines")))), {})

    def last(self, name: str) -> float | None:
        """The newest finite value of a metric, held-out before training."""
        for records in (self.evaluate, self.train):
            for one in reversed(records):
                if (value := number(one.get(name))) is not None:
                    return value
        return None


def read(run_dir: Any) -> Content:
    """All of a run. Raises UsageError if the directory is no run, Failure if a file is damaged."""
    path = epath.Path(run_dir)
    experiment = read_experiment(path)
    records = [one for one in read_metrics(path) if isinstance(one["step"], int)]
    kinds: dict[str, list[Record]] = {"train": [], "evaluate": [], "telemetry": [], "tasks": [], "event": []}
    for one in records:
        kinds.setdefault(one["kind"], []).append(one)
    resumes = [one["step"] for one in kinds["event"] if one.get("event") == "resumed"]
    with explained(path, "read"):
        numbered = path / "manifests"
        attempts = sorted(numbered.glob("*.json")) if numbered.exists() else []
    return Content(
        path=path,
        experiment=experiment,
        hash=_json(path / "config.json", dict).get("hash") or what_hash(experiment),
        status=status(path),
        train=sorted(kinds["train"], key=lambda one: one["step"]),
        evaluate=sorted(kinds["evaluate"], key=lambda one: one["step"]),
        telemetry=sorted(kinds["telemetry"], key=lambda one: one["step"]),
        tasks=sorted(kinds["tasks"], key=lambda one: one["step"]),
        resumes=sorted({step for step in resumes if step > 0}),
        seconds=breakdown([one | {"seconds": numbers(one.get("seconds"))} for one in kinds["event"]]),
        samples=[one for one in _json(path / "samples.json", list) if isinstance(one, dict)],
        data=_json(path / "data.json", dict),
        manifest=_json(path / "manifest.json", dict),
        attempts=[_json(one, dict) for one in attempts],
    )


def _json(path: epath.Path, kind: type) -> Any:
    """A file's tree, empty if there is none. Raises Failure if it is damaged."""
    with explained(path, "read"):
        if not path.exists():
            return kind()
        try:
            tree = json.loads(path.read_text())
        except ValueError:
            tree = None
    if not isinstance(tree, kind):
        raise Failure(f"{path} is damaged: expected a {kind.__name__} in JSON; delete it to leave it out")
    return tree


def series(records: list[Record], name: str) -> tuple[Points, Points, int]:
    """Steps and values of a metric where it is finite, and how many times it was not."""
    present = [one for one in records if isinstance(one.get(name), int | float | None) and name in one]
    pairs = [(one["step"], value) for one in present if (value := number(one[name])) is not None]
    steps, values = zip(*pairs) if pairs else ((), ())
    # so that differences of what is drawn are finite, too
    drawn = np.clip(np.asarray(values, float), -1e150, 1e150)
    return np.asarray(steps, float), drawn, len(present) - len(pairs)


def speed(content: Content) -> tuple[Points, Points]:
    """Steps, and tokens a second up to them, from the times of the records of each attempt."""
    tokens = content.experiment.train.batch * content.experiment.train.length
    stride = max(1, -(-len(content.train) // POINTS))
    found = []
    for before, after in zip(content.train[::stride], content.train[stride::stride]):
        then, now = number(before.get("time")), number(after.get("time"))
        taken = after["step"] - before["step"]
        if then is None or now is None or before["attempt"] != after["attempt"] or now - then < 1e-3 or taken < 1:
            continue
        found.append((after["step"], tokens * taken / (now - then)))
    steps, values = zip(*found) if found else ((), ())
    return np.asarray(steps, float), np.asarray(values, float)
