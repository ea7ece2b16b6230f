"""Several runs of one program leave what each would leave by itself."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.cli import main
from jaxlm.config.distillation import Last
from jaxlm.config.errors import UsageError
from jaxlm.config.surgery import Cut
from jaxlm.data.prepare import prepare
from jaxlm.layers.names import flatten
from jaxlm.runs.directory import status
from jaxlm.runs.initial import pinned
from jaxlm.runs.journal import read_metrics
from jaxlm.study.together import train_together
from jaxlm.study.variation import varied
from jaxlm.train.load import load_run
from jaxlm.train.run import run
from tests.drills.drill import text
from tests.study.test_programs import changed
from tests.train.tiny import experiment

EVERY = config.Every(log=2, evaluate=3, checkpoint=2)
SHORT = dataclasses.replace(
    experiment(),
    train=config.Train(steps=6, batch=8, length=32),
    objective=config.Autoregressive(z_loss=1e-3),
    samples=config.Samples(prompts=("the ",), tokens=4),
    where=config.Where(every=EVERY),
)
RUNS = (
    changed(SHORT, train__seed=1),
    changed(SHORT, train__seed=2, optimizer__schedule__peak=3e-2),
    changed(SHORT, train__seed=1, objective__z_loss=0.0, optimizer__b2=0.9),
)
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A directory with text, data made of it, and three runs that were trained together."""
    path = tmp_path_factory.mktemp("together")
    before = os.getcwd()
    os.chdir(path)
    text(path / "text")
    os.environ["JAXLM_CACHE"] = str(path / "cache")
    data = prepare(SHORT.data, SHORT.tokenizer, path / "cache", rows=264, length=32)
    results = train_together(RUNS, NAMES, data, devices=jax.devices()[:2])
    assert [one.status for one in results] == ["finished"] * 3
    yield path, data, results
    del os.environ["JAXLM_CACHE"]
    os.chdir(before)


def records(path, kind):
    return [one for one in read_metrics(path, (kind,)) if one["kind"] == kind]


def parameters(path):
    return flatten(load_run(str(path))[0])


def close(here, there, tolerance):
    """Records of two runs: the same steps and names, and values as close as that."""
    assert len(here) == len(there) > 0
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"kind", "attempt", "time"}:
            assert a[name] == pytest.approx(b[name], rel=tolerance, abs=1e-7), name


@pytest.mark.parametrize("i", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_a_run_directory_is_as_jaxlm_run_leaves_it(ground, i, capsys):
    path, _, results = ground
    alone = path / f"alone{i}"
    assert run(RUNS[i], run_dir=str(alone)) == 0
    here = path / NAMES[i]
    for kind in ("train", "evaluate"):
        close(records(here, kind), records(alone, kind), 1e-5)
    assert results[i].losses.keys() == {2, 4, 6}
    assert results[i].evaluations[6]["bits_per_byte"] == records(here, "evaluate")[-1]["bits_per_byte"]
    assert json.loads((here / "config.json").read_text()) == json.loads((alone / "config.json").read_text())
    for part in (".", "checkpoints"):
        kept, there = ({one.name for one in (of / part).iterdir()} for of in (here, alone))
        assert kept == there
    got, wanted = parameters(here), parameters(alone)
    other = parameters(path / NAMES[0])
    for name, leaf in wanted.items():
        size = max(np.linalg.norm(leaf), 1e-2)
        assert np.linalg.norm(got[name] - leaf) <= 1e-5 * size, name
    kernel = "embedding.kernel"
    assert np.linalg.norm(got[kernel] - other[kernel]) > 1e-2 * np.linalg.norm(other[kernel])


def test_the_commands_take_such_a_run(ground, capsys):
    path, _, _ = ground
    assert main(["runs", "show", str(path / "two")]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["generate", str(path / "two"), "--prompt", "the ", "--tokens", "3", "--temperature", "0"]) == 0
    manifest = json.loads((path / "two/manifest.json").read_text())
    numbers = ["objective.z_loss", "optimizer.b2", "optimizer.schedule.peak", "train.seed"]
    assert manifest["together"] == {"runs": 3, "batched": False, "numbers": numbers}
    assert len(manifest["parameters"]) == 16


def test_runs_that_were_stopped_at_different_steps_go_on(ground):
    """One is stopped by itself at step 2, all of them at step 5; meanwhile the finished one is not touched."""
    path, data, _ = ground
    names = [str(path / f"again-{name}") for name in NAMES]
    shutil.copytree(path / "three", names[2])
    before = {one: one.stat().st_mtime_ns for one in (path / "again-three").rglob("*")}
    (first,) = train_together(RUNS[:1], names[:1], data, interrupted=lambda done: done == 2)
    assert first.status == "stopped"
    assert status(names[0]) == "stopped"
    lines = []
    results = train_together(RUNS, names, data, lines.append, interrupted=lambda done: done == 5)
    assert [one.status for one in results] == ["stopped", "stopped", "finished"]
    assert any("again-one: resumed at step 2" in line for line in lines)
    results = train_together(RUNS, names, data)
    assert [one.status for one in results] == ["finished"] * 3
    for name, again in zip(NAMES[:2], names):
        close(records(again, "train"), records(path / name, "train"), 1e-5)
        close(records(again, "evaluate"), records(path / name, "evaluate"), 1e-5)
    assert before == {one: one.stat().st_mtime_ns for one in (path / "again-three").rglob("*")}


def test_a_run_that_is_not_finite_fails_alone(ground):
    path, data, _ = ground
    trees = (RUNS[0], changed(RUNS[1], optimizer__schedule__peak=1e38))
    lines, names = [], (str(path / "sound"), str(path / "broken"))
    sound, broken = train_together(trees, names, data, lines.append)
    assert (sound.status, broken.status) == ("finished", "failed")
    assert "is not finite" in broken.why
    assert any(line.startswith("broken: failed: step ") for line in lines)
    close(records(sound.path, "train"), records(path / "one", "train"), 1e-5)
    assert not (path / "broken/DONE").exists()
    assert all(np.isfinite(one["loss"]) for one in records(broken.path, "train"))
    assert not any(one["step"] == 6 for one in records(broken.path, "evaluate"))


OWN_TEXT = config.Distillation(response=config.Jsd(), labels=0.0, policy=config.OnPolicy(tokens=24, prompt=8))
TAUGHT = config.Distillation(features=(config.HiddenStates(1.0, Last(), "cosine", projection="linear"),))
FEATURES = config.Distillation(response=config.NoResponse(), labels=0.0, features=(config.HiddenStates(),))


@pytest.mark.parametrize(
    "objective", [TAUGHT, *(pytest.param(one, marks=pytest.mark.nightly) for one in (OWN_TEXT, FEATURES))]
)
def test_students_of_a_run_that_begin_with_its_layers(ground, objective):
    """The teacher and what they begin with are each run's own, also of those that had stopped."""
    path, data, _ = ground
    name = f"{type(objective.policy).__name__}-{type(objective.response).__name__}"
    student = dataclasses.replace(
        SHORT,
        model=dataclasses.replace(SHORT.model, layers=1),
        objective=objective,
        initial=str(path / "one"),
        cut=Cut(layers=(1,)),
        teacher=str(path / "two"),
    )
    first = pinned(student)
    trees = (first, changed(first, train__seed=7, objective__weight=2.0))
    names = [str(path / f"{name}{i}") for i in range(2)]
    results = train_together(trees, names, data, interrupted=lambda done: done == 3)
    assert [one.status for one in results] == ["stopped"] * 2
    assert [one.status for one in train_together(trees, names, data)] == ["finished"] * 2
    assert run(trees[1], run_dir=str(path / f"{name}-alone")) == 0
    for kind in ("train", "evaluate"):
        close(records(path / names[1], kind), records(path / f"{name}-alone", kind), 1e-5)
    assert records(path / names[0], "train")[0]["loss"] != records(path / names[1], "train")[0]["loss"]
    assert all("bits_per_byte" in one for one in records(path / names[0], "evaluate")), "labels are asked for"


def test_runs_that_start_from_runs_of_their_own(ground):
    path, data, _ = ground
    trees = [
        dataclasses.replace(changed(SHORT, train__seed=seed, train__steps=2), initial=str(path / name))
        for seed, name in ((5, "one"), (6, "two"))
    ]
    results = train_together(trees, [str(path / "from-one"), str(path / "from-two")], data)
    assert run(trees[1], run_dir=str(path / "from-two-alone")) == 0
    close(records(results[1].path, "train"), records(path / "from-two-alone", "train"), 1e-5)
    close(records(results[1].path, "evaluate"), records(path / "from-two-alone", "evaluate"), 1e-5)
    loss, theirs = (one.evaluations[2]["loss"] for one in results)
    assert abs(loss - theirs) > 1e-3 * theirs


REFUSED = {
    "initial": {"initial": "somewhere"},
    "model.embed": {"model": dataclasses.replace(SHORT.model, embed=32)},
    "train.batch": {"train": dataclasses.replace(SHORT.train, batch=4)},
    "train.clip": {"train": dataclasses.replace(SHORT.train, clip=None)},
    "optimizer.schedule.warmup": {"optimizer": config.AdamW(schedule=config.Cosine(peak=1e-2, warmup=6))},
    "optimizer": {"optimizer": config.Lion()},
    "where.layers": {"where": config.Where(layers="unroll", every=EVERY)},
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_decides_about_shapes_or_programs_is_refused_by_name(path):
    with pytest.raises(UsageError, match=rf"(?m)^  {path}: .* in tiny"):
        varied((SHORT, dataclasses.replace(SHORT, **REFUSED[path])))


def test_what_varies():
    assert varied(RUNS) == ("objective.z_loss", "optimizer.b2", "optimizer.schedule.peak", "train.seed")
    assert varied((SHORT, dataclasses.replace(SHORT, name="other"))) == ()
    assert varied((SHORT, changed(SHORT, train__clip=0.5))) == ("train.clip",)
    begun = [dataclasses.replace(one, initial=f"runs/{i}") for i, one in enumerate(RUNS[:2])]
    assert varied(begun) == varied(RUNS[:2])


def test_requests_that_cannot_work_are_refused(tmp_path, ground):
    _, data, _ = ground

    def refused(match, *trees, names=("a", "b")):
        with pytest.raises(UsageError, match=match):
            train_together(trees, [str(tmp_path / name) for name in names], data, devices=jax.devices()[:1])
        assert not any(tmp_path.iterdir())

    refused("two runs", *RUNS[:2], names=("a", "a"))
    meshed = dataclasses.replace(SHORT, where=config.Where(mesh=config.Mesh(fsdp=2)))
    refused(r"where\.mesh", meshed, changed(meshed, train__seed=1))
    watched = dataclasses.replace(SHORT, where=config.Where(every=config.Every(telemetry=1)))
    refused(r"where\.every\.telemetry", watched, changed(watched, train__seed=1))
    decayed = dataclasses.replace(SHORT, optimizer=config.Adafactor(decay=0.1))
    refused("decides what the state holds", decayed, changed(decayed, optimizer__decay=0.0))
