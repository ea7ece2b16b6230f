"""A run goes on with prompts and answers, is killed, and ends as if it had not been."""

import json
import random
import re
from pathlib import Path

import pytest

from tests.drills.drill import ROOT, end, kill, saved, wait_for

FINETUNE = ROOT / "experiments/posttrain/finetune.py"
WORDS = ("data.form:joined", "--data.paths", "talk.jsonl", "--data.held_out", "500", "--train.steps", "12")
WORDS += ("--train.batch", "8", "--train.length", "64", "--where.every.evaluate", "6", "--where.every.log", "1")
WORDS += ("--where.every.checkpoint", "4", "--optimizer.schedule.peak", "1e-2", "--model.dropout", "0.1")


@pytest.fixture(scope="module")
def talk(ground):
    """Sums of single digits, some with more to say than a row holds."""
    draw = random.Random(0)
    pairs = [(draw.randint(0, 9), draw.randint(0, 9), i) for i in range(120)]
    lines = [{"prompt": f"{i}: {a} + {b}?", "answer": f"{a + b}" + " indeed" * 20 * (i > 115)} for a, b, i in pairs]
    (ground.path / "talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def tuned(ground, run, init, *words, **options):
    return ground.train(run, "--init", init, *WORDS, *words, experiment=FINETUNE, **options)


@pytest.mark.nightly
def test_resumes_bit_for_bit(ground, straight, talk):
    init = straight()
    out = end(tuned(ground, "tuned", init)).expect(0).out
    assert "of more tokens than a row's 64, and left out: 4" in out
    facts = json.loads((ground.path / "tuned/data.json").read_text())
    assert facts["documents"]["longer than a row"] == 4
    assert sum(facts["documents"].values()) == 120
    process = tuned(ground, "killed", init)
    wait_for(process, lambda: 4 in saved(ground.path / "killed"))
    kill(process)
    assert "resumed at step" in end(tuned(ground, "killed", init)).expect(0).out
    assert ground.outcome("killed") == ground.outcome("tuned")
    measured = ground.outcome("tuned")[1]
    assert measured["evaluate", 12]["loss"] < measured["evaluate", 6]["loss"] < measured["train", 1]["loss"]


def test_what_was_tuned_is_used(ground, straight, talk):
    if not (ground.path / "tuned/DONE").exists():
        end(tuned(ground, "tuned", straight())).expect(0)
    said = end(ground.start("generate", "tuned", "--prompt", "7: 3 + 4?\n", "--tokens", "5")).expect(0).out
    assert said.startswith("7: 3 + 4?\n")
    assert (
        "has no chat template; jaxlm generate" in end(ground.start("chat", "tuned", "--prompt", "hi")).expect(2).err
    )


def test_any_experiment_goes_on_with_a_run_s_model(ground, straight):
    words = ("--init", straight(), "model:of_initial", "tokenizer:of_initial", "--model.dropout", "0.25")
    shown = end(ground.start("show", str(ROOT / "experiments/quickstart.py"), *words)).expect(0).out
    assert re.search(r"vocab +264\n +embed +16\n", shown)
    assert re.search(r"dropout +0.25", shown)
    assert re.search(r"\ntokenizer +bytes", shown)
    alone = end(ground.start("show", str(ROOT / "experiments/quickstart.py"), "model:of_initial")).expect(2)
    assert "quickstart goes on from a model: name it, --init MODEL_OR_RUN" in alone.err


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, (), "finetune goes on from a model: name it, --init MODEL_OR_RUN"),
        (2, ("--init", "nowhere"), "initial nowhere: no such run or model"),
        (1, ("--init", "STRAIGHT", *WORDS, "--train.length", "8"), "longer than a row: set train.length higher"),
        *(
            pytest.param(code, ("--init", "STRAIGHT", *words), message, marks=pytest.mark.nightly)
            for code, words, message in (
                (2, (), "takes no chat template; choose data.form:joined"),
                (2, ("data.form:joined",), "data.paths is empty: name at least one .jsonl"),
                (1, (*WORDS, "--data.answer", "reply"), "there is no 'reply' (nor 'messages'), only"),
            )
        ),
    ],
)
def test_refused(ground, straight, talk, code, words, message):
    words = [straight() if word == "STRAIGHT" else word for word in words]
    refused = end(ground.train("refused", *words, experiment=FINETUNE)).expect(code)
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert not Path(ground.path / "refused").exists()
