"""lm-evaluation-harness asks our model and its own back end of the same weights; our own tasks agree with its."""

import dataclasses
import importlib.util
import json
import math

import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Choices, Generation, LastWord, MinimalPairs, Normalization, Perplexity, Records
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.score import score
from jaxlm.evaluate.tokens import windows
from jaxlm.interop import exchange
from tests.experiments.scripts import load
from tests.interop import ggufs
from tests.tiny import random_model
from tests.tokenizers import trained

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed")

BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KIND = config.Decoder(vocab=460, embed=16, layers=1, block=BLOCK)
LENGTH = 64
WORDS = ["the", "quick", "fox", "sleeps", "lazy", "dog", "and", "then", "evening", "naïve", "café"]
script = load("harness")


def sentence(rng, least=4, most=14):
    return " ".join(rng.choice(WORDS, rng.integers(least, most)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Items with four choices, and texts of up to several windows."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = [
        {
            "question": sentence(rng),
            "choices": [sentence(rng, 1, 4) for _ in range(4)],
            "label": int(rng.integers(4)),
            "text": sentence(rng, 40, 70),
        }
        for _ in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


COMMON = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}}, "test_split": "test"}
TASKS = {
    "questions": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": one} for one in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")],
    },
    "last": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' ' + question.split(' ')[-1]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity"},
            {"metric": "acc", "aggregation": "mean"},
        ],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": one} for one in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "drawn": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "fox",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "ignore_case": True}],
        "generation_kwargs": {"until": ["z"], "max_gen_toks": 6, "do_sample": False},
    },
}


@pytest.fixture(scope="module")
def tasks(data):
    from jaxlm.evaluate.harness import tasks_of

    for name, one in TASKS.items():
        (data / f"{name}.yaml").write_text(json.dumps({"task": name, **COMMON, **one}))
    return dict(zip(TASKS, tasks_of([str(data / f"{name}.yaml") for name in TASKS], data)))


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """(our model of the library, its own) of a tiny LLaMA in Hugging Face's files."""
    for name in ("torch", "transformers", "accelerate"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    folder = tmp_path_factory.mktemp("model")
    files = {one.name: one.read_bytes() for one in trained.write("byte_bpe", folder / "files").iterdir()}
    exchange.save(KIND, random_model(KIND), folder / "tiny", length=2 * LENGTH, files=files)
    return script.sides(folder / "tiny", folder, LENGTH)


def test_both_back_ends_say_the_same(sides, tasks):
    for one in script.compare(*sides, list(tasks.values()), items=8):
        assert one.agrees, one
        assert one.items == 8


def test_another_model_does_not_pass(sides, tasks):
    """One matrix a tenth larger: tasks of log-likelihoods see it."""
    ours, theirs = sides
    model = ours.subject.model
    embedding = dataclasses.replace(model.embedding, kernel=model.embedding.kernel * 1.1)
    other = type(ours)(dataclasses.replace(ours.subject, model=dataclasses.replace(model, embedding=embedding)))
    for one in script.compare(other, theirs, [tasks["questions"], tasks["texts"]], items=8):
        assert not one.agrees
        assert one.largest > 100 * script.TOLERANCE


def test_bos_is_not_scored(sides):
    """The library's own model scores it where the tokenizer begins texts with it, unless it is told not to."""
    from lm_eval.api.instance import Instance

    (ours, theirs), subject = sides, sides[0].subject
    requests = [Instance("loglikelihood_rolling", {}, ("the quick fox",), 0)]
    assert ours.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("",), 0)]) == [0]
    bos, ids = np.array([subject.tokenizer.bos], np.int32), subject.tokenizer.encode("the quick fox")
    once, twice = (one.total for one in score(subject, [(bos, ids), (bos, np.concatenate([bos, ids]))]))
    assert abs(once - twice) > 1
    assert ours.loglikelihood_rolling(requests) == pytest.approx([once], rel=2e-5)
    for told, wanted in ((False, once), (None, twice)):
        theirs.add_bos_token = told
        assert theirs.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx([wanted], rel=2e-5)


@pytest.fixture(scope="module")
def asked(sides, tasks):
    """What the library makes of each of its tasks, and our intervals of it."""
    from jaxlm.evaluate import harness

    found = {name: harness.evaluate(sides[0].subject, [task]) for name, task in tasks.items()}
    return found, {name: {one.name: one for one in harness.metrics(each)[name]} for name, each in found.items()}


def test_choices_item_by_item(sides, data, asked):
    """Every normalization chooses what the library's metric of it does."""
    task = Choices(
        "questions",
        Records("rows.jsonl"),
        choices=("{choices}",),
        answer="{label}",
        cue="Answer:",
        normalizations=("none", "character", "byte", "token", "pmi"),
    )
    result = ask(task, data).run(sides[0].subject)
    theirs = asked[0]["questions"]["samples"]["questions"]
    names = {"none": "acc", "character": "acc_norm", "byte": "acc_bytes"}
    for mine, yours in zip(result.items, theirs, strict=True):
        scores = [nats for ((nats, _),) in yours["resps"]][:4]
        np.testing.assert_allclose(mine["nats"], scores, rtol=2e-5)
        for one, name in names.items():
            assert (mine["chosen"][one] == mine["right"]) == yours[name]
    # What pmi is compared with is the cue here and nothing there: the same choice after what the library scored.
    bare = [[nats for ((nats, _),) in yours["resps"]][4:] for yours in theirs]
    for mine, yours, alone in zip(result.items, theirs, bare):
        chosen = np.argmax(np.array(mine["nats"]) - alone)
        assert (chosen == mine["right"]) == yours["acc_mutual_info"]
    ours = {one.name: one for one in result.metrics}
    for one, name in {"accuracy": "acc", "accuracy_character": "acc_norm"}.items():
        numbers = asked[1]["questions"][name]
        assert (ours[one].value, ours[one].low, ours[one].high) == (numbers.value, numbers.low, numbers.high)
    assert len({ours[one].value for one in ours}) > 1


def test_last_words_and_texts(sides, data, asked):
    ours = ask(LastWord("last", Records("rows.jsonl"), text="{question}"), data).run(sides[0].subject)
    theirs = asked[1]["last"]
    for name, other in (("accuracy", "acc"), ("perplexity", "perplexity")):
        mine = next(one for one in ours.metrics if one.name == name)
        assert mine.value == pytest.approx(theirs[other].value, rel=1e-5)
        assert (mine.low, mine.high) == pytest.approx((theirs[other].low, theirs[other].high), rel=1e-4)
    texts = ask(Perplexity("texts", Records("rows.jsonl"), window=LENGTH), data).run(sides[0].subject)
    library = [one["resps"][0][0] for one in asked[0]["texts"]["samples"]["texts"]]
    subject, rows = sides[0].subject, [json.loads(line) for line in (data / "rows.jsonl").read_text().splitlines()]
    for row, one, nats in zip(rows, texts.items, library, strict=True):
        scored = score(subject, list(windows(subject.tokenizer.encode(row["text"]), subject.tokenizer.bos, LENGTH)))
        assert len(scored) > 1
        assert nats == pytest.approx(sum(one.total for one in scored), rel=2e-5)
        assert nats == pytest.approx(-one["nats"], rel=2e-5)
    bits = next(one for one in texts.metrics if one.name == "bits_per_byte")
    whole = sum(one["nats"] for one in texts.items) / sum(one["bytes"] for one in texts.items)
    assert bits.value == pytest.approx(whole / math.log(2))
    assert asked[1]["texts"]["bits_per_byte"].value == pytest.approx(
        -sum(library) / sum(one["bytes"] for one in texts.items) / math.log(2)
    )
    assert not any(math.isnan(one.low) for each in asked[1].values() for one in each.values())


def test_drawn_answers(sides, data, asked):
    task = Generation(
        "drawn",
        Records("rows.jsonl"),
        prompt="{question}",
        answer="fox",
        draw=Options(tokens=6, temperature=0.0),
        stop=("z",),
        normalization=Normalization(lowercase=True),
    )
    ours = ask(task, data).run(sides[0].subject)
    theirs = asked[0]["drawn"]["samples"]["drawn"]
    assert [one["texts"] for one in ours.items] == [list(one["resps"][0]) for one in theirs]


def test_pairs_are_whole_texts(sides, data):
    """Against the log-likelihoods of the library's empty context."""
    from lm_eval.api.instance import Instance

    task = MinimalPairs(
        "pairs", Records("rows.jsonl"), good="{question}", bad="{question} {label}", group="{label}"
    )
    result = ask(task, data).run(sides[0].subject)
    rows = [json.loads(line) for line in (data / "rows.jsonl").read_text().splitlines()]
    short = [row["question"] for row in rows]
    requests = [Instance("loglikelihood", {}, ("", text), 0) for text in short]
    wanted = [nats for nats, _ in sides[1].loglikelihood(requests, disable_tqdm=True)]
    np.testing.assert_allclose([one["nats"][0] for one in result.items], wanted, rtol=2e-5)
    assert result.groups.keys() == {str(row["label"]) for row in rows}
    right = [one["nats"][0] > one["nats"][1] for one in result.items]
    assert [one["right"] for one in result.items] == right
    # A text and its beginning: the beginning is the likelier.
    assert all(right)
    assert result.metrics[0].value == 1
    turned = ask(dataclasses.replace(task, good=task.bad, bad=task.good), data).run(sides[0].subject)
    assert turned.metrics[0].value == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no .*: name a task of lm-evaluation-harness, a .yaml file"),
        ("a: 1\n", "is no task: it has no `task:`"),
        ("- task: x\n", r"x\.yaml is no task of lm-evaluation-harness: .* got list"),
        ("task: [x\n", r"x\.yaml is no task of lm-evaluation-harness: (.|\n)*line 2, column 1"),
        ("task: x\ninclude: none.yaml\n", r"x\.yaml is no task of lm-evaluation-harness: .*none.yaml"),
        ("task: x\ndoc_to_text: !function none.f\n", r"x\.yaml is no task of lm-evaluation-harness: .*'none'"),
        ("task: x\ndataset_path: org/name\n", "has no local data: write dataset_path: json"),
        ("task: x\ndataset_kwargs: {data_files: none.jsonl}\n", r"there is no .*none.jsonl. Name the directory"),
    ],
)
def test_what_is_wrong_with_a_task_of_the_library(tmp_path, text, said):
    from jaxlm.evaluate.harness import tasks_of

    if text:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        tasks_of([str(tmp_path / "x.yaml")], tmp_path)


def test_a_setting_of_generation_that_is_not_understood(sides):
    from lm_eval.api.instance import Instance

    request = Instance("generate_until", {}, ("the", {"until": ["z"], "num_beams": 4}), 0)
    with pytest.raises(UsageError, match="generation_kwargs has num_beams"):
        sides[0].generate_until([request])


def test_repeats_are_samples(sides, data):
    """Texts of one prompt differ where they are drawn, and are those of our own samples; greedy ones do not."""
    from jaxlm.evaluate import harness

    found = {}
    for sample in (True, False):
        kwargs = {"until": ["z"], "max_gen_toks": 6, "do_sample": sample, "temperature": float(sample)}
        task = {"task": "repeated", **COMMON, **TASKS["drawn"], "repeats": 3, "generation_kwargs": kwargs}
        (data / "repeated.yaml").write_text(json.dumps(task))
        (task,) = harness.tasks_of([str(data / "repeated.yaml")], data)
        items = harness.evaluate(sides[0].subject, [task], limit=4)["samples"]["repeated"]
        found[sample] = [item["resps"][0] for item in items]
    assert all(len({*each}) == len(each) == 3 for each in found[True])
    assert all(len({*each}) == 1 and len(each) == 3 for each in found[False])
    task = Generation(
        "drawn",
        Records("rows.jsonl", limit=4),
        prompt="{question}",
        answer="fox",
        draw=Options(tokens=6, samples=3),
        stop=("z",),
    )
    assert [one["texts"] for one in ask(task, data).run(sides[0].subject).items] == found[True]


def test_no_item_is_its_own_example(sides, tmp_path):
    """The shipped GSM8K over a file of four items, of which each sees two others."""
    from jaxlm.evaluate import harness

    (tmp_path / "instruct").mkdir()
    rows = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(4)]
    (tmp_path / "instruct/gsm8k_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = harness.tasks_of([str(script.TASKS / "gsm8k.yaml")], tmp_path)
    task["generation_kwargs"]["max_gen_toks"] = 2
    items = harness.evaluate(sides[0].subject, [task])["samples"]["gsm8k_local"]
    assert len(items) == 4
    for item in items:
        asked = [item["arguments"][0][0].count(row["question"]) for row in rows]
        assert sorted(asked) == [0, 1, 1, 1]
        assert asked[item["doc_id"]] == 1


def test_prompts_that_are_cut_are_counted(sides, caplog):
    """Each once, however many continuations or samples it has."""
    from lm_eval.api.instance import Instance

    model, long = sides[0], "the quick fox " * 60
    for context in (long, "the"):
        model.loglikelihood([Instance("loglikelihood", {}, (context, word), 0) for word in (" dog", " fox")])
        asked = Instance("generate_until", {}, (context, {"until": ["z"], "max_gen_toks": 2}), 0)
        model.generate_until([asked] * 2)
    assert [one.message for one in caplog.records if one.name == "jaxlm.evaluate.harness"] == [
        "1 of 1 prompts were longer than the model reads, and were cut on the left",
        "1 of 1 prompts left no room for an answer, and were cut on the left",
    ]


@pytest.mark.nightly
def test_both_back_ends_say_the_same_of_a_published_model(tmp_path, monkeypatch):
    """SmolLM2 on BLiMP, LAMBADA, web pages and GSM8K."""
    import os
    from pathlib import Path

    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    data = Path(os.environ.get("JAXLM_DATA") or pytest.skip("JAXLM_DATA names no directory of data"))
    models = script.sides(ggufs.published(), tmp_path, 512)
    for names, items in ((["blimp", "lambada"], 20), (["c4", "gsm8k"], 4)):
        for one in script.compare(*models, script.local_tasks(names, data, tmp_path), items):
            assert one.agrees, one
            assert one.items == items
