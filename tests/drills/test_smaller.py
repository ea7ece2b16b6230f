"""Models in fewer bits, with adapters, and learned from larger ones: by the command line, as runs that are used."""

import json
import re
import shutil

import pytest

from tests.drills.drill import end, saved

LORA = ("model:of_initial", "tokenizer:of_initial", "adapter:lora", "--adapter.rank", "2", "--train.steps", "6")
ROUNDED = ("--method", "gptq", "--bits", "4", "--group", "8", "--train.length", "32", "--held-out", "2")


@pytest.fixture(scope="module")
def rounded(ground, straight):
    """(Name of a run in 4 bits, what the command printed)."""
    words = ("quantize", straight(), *ROUNDED, "--run-dir", "rounded")
    return "rounded", end(ground.start(*words)).expect(0).out


def generated(ground, run):
    words = ("generate", run, "--prompt", "the ", "--tokens", "64", "--temperature", "0")
    return end(ground.start(*words)).expect(0).out


def test_quantize_says_what_is_lost_and_makes_a_run(ground, straight, rounded):
    run, out = rounded
    shown = dict(re.findall(r"^(size|perplexity|cross_entropy) +(.*)$", out, re.M))
    before, after, change = re.match(r"([\d.]+) +([\d.]+) +([-+\d.]+ %)", shown["perplexity"]).groups()
    assert float(before) != float(after), change
    assert float(shown["size"].split()[-1]) < 0.7
    kept = json.loads((ground.path / run / "quantization.json").read_text())
    errors = [one["error"] for one in kept["weights"]]
    assert len(errors) == 2 * 7
    assert errors == sorted(errors, reverse=True)
    assert kept["weights"][0]["name"] in out
    again = end(ground.start("quantize", straight(), *ROUNDED, "--run-dir", "rounded")).expect(0).out
    assert again.strip() == out[out.index("\n\n") :].strip() or again.strip() in out
    assert generated(ground, run).startswith("the ")


def test_from_disk_as_in_memory(ground, rounded):
    """64 greedy tokens of the run, and of the same model rounded anew in another process."""
    code = """
import dataclasses, sys
import jax
from jaxlm.config import NoQuantization
from jaxlm.config.sampling import Options
from jaxlm.quantize.methods import choose
from jaxlm.runs.directory import read_experiment
from jaxlm.sampling.text import stream
from jaxlm.train import quantized
from jaxlm.train.load import load_run
from jaxlm.train.models import base_of
from jaxlm.train.run import prepared_data, rows_of

experiment = read_experiment(sys.argv[1])
_, tokenizer, call = load_run(sys.argv[1])
rows, _ = rows_of(experiment, prepared_data(experiment, str))
dense = dataclasses.replace(experiment, quantization=NoQuantization())
model = base_of(dense, call.layout, call.precision)
model, _ = choose(model, quantized.tokens_of(experiment, rows, call), call, experiment.quantization, say=str)
print("the " + "".join(stream(model, tokenizer, "the ", Options(64, 0.0), call, 0)))
"""
    made = end(ground.script(code, rounded[0])).expect(0).out
    assert made.strip() == generated(ground, rounded[0]).strip()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--group", "7"), "Integers(group=7) does not divide a matrix of 16 inputs: use 4 or 8"),
        (("--bits", "9"), "there are 2 to 8 bits"),
        (("--method", "gtpq"), "quantization.method has no choice 'gtpq'"),
        (("--train.steps", "1", "--train.batch", "1", "--train.length", "16"), "16 tokens beside padding"),
        (("--quantization.rules.0.targets", "zzz"), "'zzz' is found in the name of no weight"),
        (("--held-out", "none"), "--held-out none: expected a number of batches"),
        (("quantization:no_quantization",), "a model is stored rounded"),
    ],
)
@pytest.mark.nightly
def test_what_cannot_be_rounded(ground, straight, words, message):
    ended = end(ground.start("quantize", straight(), *words, "--run-dir", "refused")).expect(2)
    assert message in ended.err
    assert not (ground.path / "refused").exists()


def test_what_is_rounded_is_rounded_once(ground, rounded):
    ended = end(ground.start("quantize", rounded[0])).expect(2)
    assert "rounded is quantized already: name the model that it was made from" in ended.err


def test_an_adapter_over_rounded_numbers(ground, rounded):
    """QLoRA: trained and used; the checkpoint holds the adapter alone."""
    ground.finish("adapter", "--init", rounded[0], *LORA, "quantization:of_initial")
    newest = ground.path / "adapter/checkpoints" / str(max(saved(ground.path / "adapter")))
    held = [name for name in json.loads((newest / "meta/metadata").read_text())["arrays"] if name[:6] == "model."]
    assert held
    assert all(name.endswith((".a", ".b")) for name in held)
    assert generated(ground, "adapter").startswith("the ")
    refused = end(ground.train("dense", "--init", rounded[0], *LORA)).expect(2)
    assert "use quantization:of_initial, or begin from the model before it was rounded" in refused.err
    assert not (ground.path / "dense").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("scales", ["straight_through", "lsq"])
def test_what_was_trained_through_a_rounding_is_stored_by_it(ground, scales):
    words = ("quantization:aware", f"quantization.scales:{scales}", "--quantization.rules.0.format.bits", "4")
    ground.finish(f"aware-{scales}", *words, "--train.steps", "6")
    stored = ("quantize", f"aware-{scales}", "--held-out", "2", "--run-dir", f"stored-{scales}")
    out = end(ground.start(*stored)).expect(0).out
    before, after = re.search(r"^perplexity +([\d.]+) +([\d.]+)", out, re.M).groups()
    assert float(after) == pytest.approx(float(before), rel=1e-4)
    assert generated(ground, f"stored-{scales}") == generated(ground, f"aware-{scales}")
    refused = end(ground.start(*stored[:2], "--bits", "3")).expect(2)
    assert "was trained through a rounding of its own" in refused.err


@pytest.mark.nightly
def test_a_rotated_model_is_used_like_any_other(ground, straight):
    """Nothing rounded it writes the same text; rounded it is read back, adapted and exported with its own head."""
    turned = ("quantize", straight(), "quantization.rotation:rotated", "--held-out", "1")
    kept = ("quantization.method:nearest", "quantization.rules.0.format:kept", "--run-dir", "rotated")
    out = end(ground.start(*turned, *kept)).expect(0).out
    before, after = re.search(r"^perplexity +([\d.]+) +([\d.]+)", out, re.M).groups()
    assert float(after) == pytest.approx(float(before), rel=2e-5)
    assert generated(ground, "rotated") == generated(ground, straight())
    end(ground.start(*turned, *ROUNDED[:-2], "--run-dir", "rotated-rounded")).expect(0)
    assert generated(ground, "rotated-rounded").startswith("the ")
    ground.finish("rotated-adapter", "--init", "rotated-rounded", *LORA, "quantization:of_initial")
    assert generated(ground, "rotated-adapter").startswith("the ")
    end(ground.start("export", "rotated", "rotated-out")).expect(0)
    assert json.loads((ground.path / "rotated-out/config.json").read_text())["tie_word_embeddings"] is False
    rounded = ("quantization:rounded", "quantization.rotation:rotated")
    refused = end(ground.train("refused", "--init", straight(), *LORA, *rounded)).expect(2)
    assert "quantization.rotation is Rotated: jaxlm quantize rotates a model and stores it" in refused.err
    refused = end(ground.start(*turned, "model.norm:layer_norm")).expect(2)
    assert "model.norm is LayerNorm" in refused.err


@pytest.mark.nightly
def test_rounding_is_learned_from_texts_of_the_model_itself(ground, straight):
    """LLM-QAT: no data but the model's own, taught by it before it was rounded, and stored as it was trained."""
    own = ("distill", "own", straight(), "--out", "own.jsonl", "--texts", "96", "--tokens", "128")
    end(ground.start(*own)).expect(0)
    data = ("data.source:text_files", "--data.source.paths", "own.jsonl", "--data.held_out", "150")
    data += ("--data.filters.languages", "--data.filters.min_chars", "1")
    data += ("--data.filters.max_repetition", "1", "--data.filters.max_symbols", "1")
    taught = ("objective.response:forward_kl", "--objective.labels", "0", "--objective.weight", "1")
    words = ("--layers", "all", "quantization:aware", "--quantization.rules.0.format.bits", "4", *data, *taught)
    run = ("--train.steps", "4", "--run-dir", "taught")
    out = end(ground.start("distill", straight(), *words, *run)).expect(0).out
    assert re.search(r"^perplexity +[\d.]+ +[\d.]+", out, re.M)
    end(ground.start("quantize", "taught", "--held-out", "1", "--run-dir", "stored-taught")).expect(0)
    assert generated(ground, "stored-taught") == generated(ground, "taught")


def test_an_adapter_finds_its_base_or_says_that_it_does_not(ground, straight):
    ground.finish("moved", "--init", straight(), *LORA)
    text = generated(ground, "moved")
    away = ground.path / "away"
    away.mkdir()
    for one in ("moved", straight()):
        shutil.copytree(ground.path / one, away / one)
    assert generated(ground, "away/moved") == text
    shutil.move(ground.path / "moved", ground.path / "alone")
    renamed = ground.path / "gone"
    shutil.move(ground.path / straight(), renamed)
    try:
        failed = end(ground.start("generate", "alone", "--prompt", "a")).expect(2)
    finally:
        shutil.move(renamed, ground.path / straight())
    assert f"alone holds the adapter of {straight()}, which is neither there nor" in failed.err


def test_adapters_go_out_and_come_in(ground, straight):
    """Merged, alone as PEFT keeps them, and back over their base: the same text. What is no matrix stays."""
    ground.finish("tuned", "--init", straight(), *LORA)
    assert "safetensors" in end(ground.start("export", "tuned", "merged-out")).expect(0).out
    assert "adapter_config.json" in end(ground.start("export", "tuned", "peft-out", "--adapter")).expect(0).out
    end(ground.start("import", "peft-out", "tuned-again", "--base", straight())).expect(0)
    assert generated(ground, "tuned-again") == generated(ground, "tuned")
    alone = end(ground.start("import", "peft-out", "other")).expect(2)
    assert "peft-out is an adapter: name what it was trained on, --base MODEL_OR_RUN" in alone.err
    none = end(ground.start("export", straight(), "none-out", "--adapter")).expect(2)
    assert f"{straight()} has no adapter: all of its parameters were trained" in none.err
    words = (*LORA[:2], "adapter:prefix_tuning", "--adapter.length", "2", "--train.steps", "2")
    ground.finish("prefixed", "--init", straight(), *words)
    kept = end(ground.start("export", "prefixed", "prefix-out")).expect(2)
    assert "prefixed has prefix_tuning, which is no part of any weight" in kept.err


def test_distill_makes_and_compares_a_student(ground, straight):
    words = ("distill", straight(), "--train.steps", "6", "--held-out", "2", "--run-dir", "student")
    out = end(ground.start(*words)).expect(0).out
    teacher, student = re.search(r"^parameters +([\d,]+) +([\d,]+)$", out, re.M).groups()
    assert int(student.replace(",", "")) < int(teacher.replace(",", ""))
    assert re.search(r"^perplexity +[\d.]+ +[\d.]+$", out, re.M)
    kept = json.loads((ground.path / "student/config.json").read_text())["experiment"]
    assert kept["model"]["layers"] == 1
    assert kept["cut"]["layers"] == [0]
    assert kept["teacher"] == kept["initial"]
    assert generated(ground, "student").startswith("the ")


@pytest.mark.nightly
@pytest.mark.parametrize("devices", [1, 8])
def test_what_a_teacher_said_before(ground, straight, devices):
    """Written by the first student, and read by the second."""
    mesh = ("--where.mesh.fsdp", "2", "--where.mesh.tensor", "2") if devices == 8 else ()
    likeliest = str(4 + devices)  # each its own
    taught = ("objective.response:forward_kl", "--objective.likeliest", likeliest, "packing:best_fit")
    words = ("distill", straight(), *taught, "--held-out", "2", *mesh)
    first = ("--train.steps", "6", "--run-dir", f"told-{devices}")
    out = end(ground.start(*words, *first, devices=devices)).expect(0).out
    assert f"writing the {likeliest} likeliest tokens" in out
    assert "divergence" in out
    again = ("--train.steps", "5", "--train.seed", "1", "--run-dir", f"told-again-{devices}")
    assert "writing the" not in end(ground.start(*words, *again, devices=devices)).expect(0).out


@pytest.mark.nightly
@pytest.mark.parametrize(
    "words",
    [
        ("objective.policy:on_policy", "--objective.labels", "0", "--objective.policy.tokens", "8"),
        (
            *("objective.policy:policy_gradient", "objective.response:reverse_kl", "--objective.labels", "0"),
            *("--objective.policy.tokens", "8"),
        ),
        ("objective.policy:policy_gradient", "objective.response:reverse_kl", "--objective.policy.tokens", "8"),
    ],
    ids=["on_policy", "policy_gradient", "with_labels"],
)
@pytest.mark.parametrize("devices", [1, 8])
def test_a_student_learns_on_its_own_texts(ground, straight, words, devices):
    mesh = ("--where.mesh.fsdp", "2", "--where.mesh.tensor", "2") if devices == 8 else ()
    run = f"own-{devices}-{words[0][-6:]}-{len(words)}"
    words = ("distill", straight(), "--train.steps", "4", "--held-out", "2", *words, *mesh, "--run-dir", run)
    assert "perplexity" in end(ground.start(*words, devices=devices)).expect(0).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "0,5"), "layers names layer 5: the teacher has 2, counted from 0"),
        (("--objective.likeliest", "8"), "a part of a distribution cannot be softened; use 1"),
        pytest.param(("--layers", "some"), "expected half, all, or numbers", marks=pytest.mark.nightly),
        pytest.param(("--cut.width", "4000"), "width is 4000", marks=pytest.mark.nightly),
    ],
)
def test_what_cannot_be_distilled(ground, straight, words, message):
    assert message in end(ground.start("distill", straight(), *words)).expect(2).err


def test_a_teacher_of_other_tokens_is_refused(ground, straight):
    """The same number of tokens, two of them exchanged."""
    shutil.copytree(ground.path / straight(), ground.path / "foreign")
    config = ground.path / "foreign/config.json"
    tree = json.loads(config.read_text())
    tree["experiment"]["tokenizer"] = {"class": "Whitespace", "vocab": 264}
    config.write_text(json.dumps(tree))
    words = ("objective:distillation", "--teacher", "foreign", "--train.steps", "2")
    assert "foreign" in end(ground.train("taught", *words)).expect(2).err
    alone = end(ground.train("taught", "objective:distillation")).expect(2)
    assert "teacher is empty: Distillation learns from a model; name it, --teacher RUN" in alone.err
