"""Arms differ in what a study names, and in nothing else."""

import dataclasses
import json

import pytest

from experiments.benchmarks.studies import HIDDEN
from jaxlm.config import Arm, Distillation, Muon, OfInitial
from jaxlm.config.codec import to_json
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import apply
from jaxlm.study.gate import derived, differences
from jaxlm.study.plan import arms_of, cells, plan
from tests.study.studies import BASE, longer, study


def refused(asked) -> str:
    with pytest.raises(UsageError) as error:
        plan(asked)
    return str(error.value)


@pytest.mark.parametrize("change", HIDDEN)
def test_planted_differences_are_refused_by_name(change):
    """The same change, named, is planned: it is refused for being hidden, not for being wrong."""
    both = (Arm("rope"), Arm("alibi", ("model.position:alibi", change)))
    path = change.removeprefix("--").partition("=")[0].partition(":")[0]
    said = refused(study(arms=both, match="steps"))
    # a seed is set by the study, whose arms may not set it
    assert path in said
    if path != "train.seed":
        extra = ("parameters", "flops_per_token", "tokens")
        arms = arms_of(study(arms=both))
        needed = {name for name in extra if name in differences(arms)}
        fair = {"match": "steps", "metric": "bits_per_byte"}
        plan(study(arms=both, differs=("model.position", path, *needed), **fair))


def test_a_difference_that_came_with_another_file():
    """A whole experiment as an arm: one number of 60 is another."""
    other = dataclasses.replace(BASE, optimizer=dataclasses.replace(BASE.optimizer, b2=0.98))
    said = refused(study(arms=(Arm("rope"), Arm("alibi", ("model.position:alibi",), other))))
    assert "optimizer.b2" in said
    assert "0.98" in said


def test_what_a_change_comes_to_is_a_difference():
    learned = (Arm("rope"), Arm("learned", ("model.position:learned", "--model.position.length=256")))
    said = refused(study(arms=learned))
    assert "parameters" in said
    assert f"{derived(BASE)['parameters']:,}" in said
    plan(study(arms=learned, differs=("model.position", "parameters")))


def test_another_architecture_brings_its_fields():
    arms = (Arm("adamw"), Arm("muon", ("optimizer:muon",)))
    found = differences(arms_of(study(arms=arms)))
    assert found["optimizer"] == {"adamw": "AdamW", "muon": "Muon"}
    assert found["optimizer.momentum"] == {"adamw": "(absent)", "muon": Muon().momentum}
    plan(study(arms=arms, differs=("optimizer",)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"arms": (Arm("rope"), Arm("same"))}, "arm same varies nothing: it is the same as arm rope"),
        ({"arms": (Arm("rope"),)}, "1 arms"),
        ({"arms": (Arm("a"), Arm("a", ("model.position:alibi",)))}, "two arms are called 'a'"),
        ({"arms": (Arm("a/b"), Arm("c", ("model.position:alibi",)))}, "'a/b'"),
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (1, 1)}, "seed 1 is named twice"),
        ({"seeds": (-1,)}, "seed -1"),
        ({"differs": ("model.position", "model.norm")}, "'model.norm', in which the arms are the same"),
        ({"arms": (Arm("rope"), Arm("alibi", ("model.positon:alibi",)))}, "arm alibi"),
        ({"arms": (Arm("rope"), Arm("alibi", ("model.position:alibi", "--train.batch=0")))}, "train.batch"),
    ],
)
def test_what_is_wrong_is_said(fields, said):
    assert said in refused(study(**fields))


@pytest.mark.parametrize(
    ("change", "metric", "instead"),
    [
        ("--objective.z_loss=1e-3", "loss", "cross_entropy"),
        ("--tokenizer.special=[MASK]", "cross_entropy", "bits_per_byte"),
        ("model.position:alibi", "accuracy", "better = 'higher'"),
    ],
)
def test_a_metric_that_is_not_the_same_measure(change, metric, instead):
    path = change.removeprefix("--").partition("=")[0].partition(":")[0]
    given = {"arms": (Arm("one"), Arm("other", (change,))), "differs": (path,)}
    said = refused(study(**given, metric=metric))
    assert f"metric {metric!r}" in said
    assert instead in said
    plan(study(**given, metric="bits_per_byte"))


def test_initial_parameters_that_are_not_there(tmp_path):
    base = dataclasses.replace(BASE, initial=str(tmp_path / "nowhere"))
    assert f"no run for initial '{tmp_path / 'nowhere'}' (arms rope, alibi)" in refused(study(base=base))
    (tmp_path / "nowhere").mkdir()
    said = refused(study(base=base))
    assert "arm rope: " in said
    assert "nowhere has no checkpoint yet" in said


@pytest.mark.parametrize(
    ("role", "fields", "said"),
    [
        ("initial", {}, "no run for initial 'runs/nowhere' (arms rope, alibi)"),
        ("initial", {"model": OfInitial()}, "arm rope: initial runs/nowhere: no such run or model"),
        ("teacher", {"objective": Distillation()}, "no run for teacher 'runs/nowhere' (arms rope, alibi)"),
    ],
)
def test_a_run_that_is_not_there_and_how_it_is_made(role, fields, said):
    """Unless its model is asked for, arms are known without it."""
    base = dataclasses.replace(BASE, **fields, **{role: "runs/nowhere"})
    asked = study(base=base, metric="bits_per_byte", obtain="jaxlm run teacher.py --run-dir runs/nowhere")
    text = refused(asked)
    assert said in text
    assert text.endswith("\n  to be had: jaxlm run teacher.py --run-dir runs/nowhere")
    if "model" not in fields:
        assert getattr(arms_of(asked)["alibi"], role) == "runs/nowhere"


def test_a_study_that_starts_from_a_run(tmp_path):
    """All arms have its model and its parameters, named by what they are: another run there is another study."""
    run, folders = tmp_path / "run", []
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"hash": "", "experiment": to_json(BASE)}))
    base = dataclasses.replace(BASE, model=OfInitial(), initial=str(run))
    asked = study(base=base, arms=(Arm("slow"), Arm("fast", ("--train.clip=2",))), differs=("train.clip",))
    for step, fingerprint in ((1, "a"), (2, "b")):
        meta = run / f"checkpoints/{step}/meta"
        meta.mkdir(parents=True)
        (meta / "metadata").write_text(json.dumps({"fingerprint": {"model.kernel": fingerprint}}))
        arms = plan(asked)
        assert {one.model for one in arms.values()} == {BASE.model}
        assert len({one.initial for one in arms.values()}) == 1
        folders.append({cell.folder for cell in cells(asked, arms)})
    assert not folders[0] & folders[1]


def test_a_teacher_costs_what_it_computes(tmp_path):
    """Its forward pass beside the student's three: a difference that the study has to name."""
    run = tmp_path / "teacher"
    (run / "checkpoints/1/meta").mkdir(parents=True)
    (run / "checkpoints/1/meta/metadata").write_text(json.dumps({"fingerprint": {"model.kernel": "a"}}))
    (run / "config.json").write_text(json.dumps({"hash": "", "experiment": to_json(BASE)}))
    taught = Arm("taught", ("objective:distillation", f"--teacher={run}"))
    asked = study(arms=(Arm("labels"), taught), differs=("objective", "teacher"), metric="bits_per_byte")
    assert "flops_per_token" in refused(asked)
    arms = plan(dataclasses.replace(asked, differs=(*asked.differs, "flops_per_token")))
    alone, both = (derived(arms[name])["flops_per_token"] for name in ("labels", "taught"))
    assert both == pytest.approx(4 / 3 * alone)
    assert both * 600 * 16 * 256 == derived(arms["taught"])["flops"]


def test_a_base_that_is_wrong_is_said_before_its_budget():
    assert "train.steps" in refused(study(base=longer(0)))


def test_where_a_run_is_decides_only_a_study_of_it():
    """By default another micro-batch is no other run; where arms differ in it, it is."""
    places = {
        (of, split): {cell.folder for cell in cells(asked, plan(asked)) if cell.arm == "other"}
        for of, change in (("where", "--where.micro_batches"), ("model", "model.position:alibi"))
        for split in (2, 4)
        for asked in (
            study(
                arms=(Arm("one"), Arm("other", (f"{change}={split}" if of == "where" else change,))),
                differs=("where.micro_batches" if of == "where" else "model.position",),
            ),
        )
    }
    assert not places["where", 2] & places["where", 4]
    assert places["model", 2] == places["model", 4]


def test_files_that_are_not_there(tmp_path):
    there = tmp_path / "there.txt"
    there.write_text("text")
    base = apply(BASE, ["data.source:text_files", "--data.source.paths", str(there), str(tmp_path / "gone.txt")])
    said = refused(study(base=base, obtain="https://example.org/corpus"))
    assert "gone.txt" in said
    assert "there.txt" not in said
    assert "to be had: https://example.org/corpus" in said
    base = apply(base, ["--data.source.paths", str(there), str(tmp_path / "*.jsonl")])
    assert "*.jsonl" in refused(study(base=base))


def test_seeds_are_paired():
    planned = plan(study())
    found = cells(study(), planned)
    assert [cell.name for cell in found] == ["rope/0", "alibi/0", "rope/1", "alibi/1", "rope/2", "alibi/2"]
    assert [cell.experiment.train.seed for cell in found] == [0, 0, 1, 1, 2, 2]
    assert len({cell.folder for cell in found}) == 6
    # the directory's name follows what is computed, not how
    again = cells(study(), plan(study(base=dataclasses.replace(BASE, name="other"))))
    assert [cell.folder for cell in again] == [cell.folder for cell in found]
    other = cells(study(), plan(study(base=longer(601))))
    assert not {cell.folder for cell in other} & {cell.folder for cell in found}
