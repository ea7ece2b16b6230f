"""Tasks of vectors and labels through `jaxlm eval`, with a small encoder and with one that was trained."""

import dataclasses
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.config.load import load_tasks
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.calibration import negative_log_likelihood
from jaxlm.evaluate.clustering import kmeans, normalized_mutual_information
from jaxlm.evaluate.records import read
from jaxlm.evaluate.subject import of_run
from jaxlm.evaluate.vectors import vectors_of
from jaxlm.families import known
from jaxlm.interop import exchange
from jaxlm.interop.imported import bring
from tests.families.tiny import BERT
from tests.interop.packages import data, sentence_encoder
from tests.tiny import random_model
from tests.tokenizers import trained

ROOT = Path(jaxlm.__file__).parent.parent
FILES = ("jsts", "clinc150", "clinc150_clusters", "sst2_vectors", "sst2_labels", "xquad_retrieval")
TASKS = """
from jaxlm.config import Clustering, Labels, Probe, Records, Retrieval, Similarity, Task

ROWS = Records("rows.jsonl")


def tasks() -> tuple[Task, ...]:
    pairs = Similarity(data=ROWS, first="{text}", second="{other}", score="{n}")
    clusters = Clustering(data=ROWS, restarts=2)
    probe = Probe(train=Records("train.jsonl"), data=ROWS)
    return pairs, clusters, probe, Retrieval(data=ROWS, query="{text}", document="{other}")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with data, a file of tasks and a model of Hugging Face's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXLM_DATA", str(tmp_path))
    draw = random.Random(0)
    words = ["the", "quick", "brown", "fox", "sleeps", "over", "lazy", "dog", "evening"]
    for name in ("rows", "train"):
        rows = [
            {"text": " ".join(draw.choices(words, k=5)), "other": " ".join(draw.choices(words, k=9))}
            for _ in "x" * 30
        ]
        rows = [{**row, "n": i % 7, "label": "ab"[i % 2]} for i, row in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(TASKS)
    kind = known.family("bert").read(BERT | {"vocab_size": 400, "architectures": ["BertModel"]})
    files = {one.name: one.read_bytes() for one in trained.write("wordpiece", tmp_path / "files").iterdir()}
    exchange.save(kind, random_model(kind), tmp_path / "small", length=64, files=files)
    return tmp_path


def test_results_are_printed_and_written(place, capsys):
    assert main(["eval", "small", "mine.py", "--limit", "20", "--vectors.pool", "last"]) == 0
    out = capsys.readouterr().out
    for name, metrics in (
        ("similarity", ("spearman", "pearson")),
        ("clustering", ("nmi", "ari", "purity")),
        ("probe", ("accuracy", "macro_f1", "matthews", "loss", "brier", "ece", "ece_mass")),
        ("retrieval", ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10")),
    ):
        assert tuple(re.findall(rf"^{name} +(\S+) +-?\d", out, re.M)) == metrics
        (path,) = place.glob(f"runs/*/evaluations/{name}.json")
        tree = json.loads(path.read_text())
        assert len(tree["items"]) == 20
        assert tree["task"]["vectors"]["pool"] == "last"
        assert [one["name"] for one in tree["metrics"]] == list(metrics)


def test_a_model_without_a_classifier_is_refused(place, capsys):
    (place / "mine.py").write_text(TASKS[: TASKS.index("    pairs")] + "    return (Labels(data=ROWS),)\n")
    assert main(["eval", "small", "mine.py"]) == 2
    assert "has no classifier of texts" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_shipped_tasks_read_their_data(name):
    """None of them needs a model for it; the fields of all items are there."""
    root = data()
    for task in load_tasks(str(ROOT / f"experiments/evaluations/{name}.py")):
        assert (
            ask(task, root).items
            == {"jsts": 1457, "sst2": 872, "xquad": 1187, "clinc150": 4500}[task.name.split("_")[0]]
        )


def test_shipped_tasks_import_no_jax():
    names = [f"experiments.evaluations.{name}" for name in FILES]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name).tasks()\n"
    code += "assert not {'jax', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.nightly
def test_a_classifier_is_judged_as_its_run_judged_it(tmp_path):
    """The held-out loss and accuracy of training, of texts and of pairs, some of which are cut."""
    draw = random.Random(0)
    words = {"good": "bright warm kind sweet", "bad": "dark cold mean sour"}

    def rows(count):
        for i in range(count):
            label = draw.choice(list(words))
            said = draw.choices(words[label].split() * 3 + words["good"].split() + words["bad"].split(), k=6)
            yield {
                "text": " ".join(said) + f" {i} {draw.random()}",
                "more": " or so" * draw.randint(1, 30),
                "label": label,
            }

    for name, count in (("train", 400), ("test", 90)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    (tmp_path / "mine.py").write_text(
        "from jaxlm.config import Labels, Records\n"
        "def tasks(): return (Labels(data=Records('test.jsonl'), second='{more}', names=('bad', 'good')),)\n"
    )
    words = (
        "data:labeled --data.paths train.jsonl --data.held_out_paths test.jsonl --data.second more tokenizer:bytes "
    )
    words += "--train.steps 12 --train.batch 16 --train.length 48 --model.layers 1 --model.embed 32 --run-dir run "
    words += "tokenizer:bytes --precision float32"
    out = command(tmp_path, "run", str(ROOT / "experiments/objectives/classification.py"), *words.split())
    told = re.search(r"step 12 held out: accuracy (\S+)  classification (\S+)", out)
    command(tmp_path, "eval", "run", "mine.py", "--data", ".")
    tree = json.loads((tmp_path / "run/evaluations/labels.json").read_text())
    found = {one["name"]: one["value"] for one in tree["metrics"]}
    assert found["accuracy"] == pytest.approx(float(told[1]), abs=1e-4)
    assert found["loss"] == pytest.approx(float(told[2]), abs=1e-4)
    assert any("and cut" in note for note in tree["notes"])


def command(directory, *words):
    run = subprocess.run([sys.executable, "-m", "jaxlm", *words], cwd=directory, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


@pytest.mark.nightly
def test_a_sentence_encoder_is_as_good_as_scikit_learn_finds_it(tmp_path):
    """all-MiniLM-L6-v2: the same vectors through scikit-learn, and what published encoders of its size can do."""
    cluster = pytest.importorskip("sklearn.cluster")
    root, subject = data(), of_run(bring(sentence_encoder(tmp_path / "minilm"), str(tmp_path / "run")))
    (retrieval,) = load_tasks(str(ROOT / "experiments/evaluations/xquad_retrieval.py"))
    retrieval = dataclasses.replace(retrieval, data=dataclasses.replace(retrieval.data, limit=150))
    found = {one.name: one.value for one in ask(retrieval, root).run(subject).metrics}
    assert found["recall@1"] > 0.85

    intents, _ = load_tasks(str(ROOT / "experiments/evaluations/clinc150_clusters.py"))
    small = dataclasses.replace(intents, data=dataclasses.replace(intents.data, limit=500))
    result = ask(small, root).run(subject)
    items = read(small.data, root)
    vectors, _ = vectors_of([one["text"] for one in items], small.vectors, subject)
    gold = np.unique([one["intent"] for one in items], return_inverse=True)[1]
    k = int(gold.max()) + 1
    theirs = [
        normalized_mutual_information(gold, cluster.KMeans(k, n_init=3, random_state=i).fit(vectors).labels_)
        for i in range(3)
    ]
    ours = [normalized_mutual_information(gold, kmeans(vectors, k, 3, i).labels) for i in range(3)]
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.01
    assert result.metrics[0].value == pytest.approx(np.mean(theirs), abs=0.02)


@pytest.mark.nightly
def test_a_probe_is_the_one_that_scikit_learn_fits(tmp_path):
    """Of all-MiniLM-L6-v2's vectors, a part of which never changes."""
    linear = pytest.importorskip("sklearn.linear_model")
    root, subject = data(), of_run(bring(sentence_encoder(tmp_path / "minilm"), str(tmp_path / "run")))
    probe, _ = load_tasks(str(ROOT / "experiments/evaluations/sst2_vectors.py"))
    probe = dataclasses.replace(
        probe,
        data=dataclasses.replace(probe.data, limit=400, seed=0),
        train=dataclasses.replace(probe.train, limit=300, seed=0),
    )
    result = ask(probe, root).run(subject)
    penalty = float(re.match(r"penalty (\S+),", result.notes[-1])[1])
    train, test = (read(one, root) for one in (probe.train, probe.data))
    vectors, _ = vectors_of([one["sentence"] for one in (*train, *test)], probe.vectors, subject)
    given, asked = np.split(vectors, [len(train)])
    mean, scale = given.mean(axis=0, dtype=float), given.std(axis=0, dtype=float)
    scale = np.where(scale > 1e-7 * scale.max(), scale, 1)
    labels, gold = (np.array([int(one["label"]) for one in each]) for each in (train, test))
    model = linear.LogisticRegression(C=2 / penalty, max_iter=5_000, tol=1e-8).fit((given - mean) / scale, labels)
    values = {one.name: one.value for one in result.metrics}
    assert values["accuracy"] == pytest.approx(model.score((asked - mean) / scale, gold), abs=0.003)
    log_p = model.predict_log_proba((asked - mean) / scale)
    assert values["loss"] == pytest.approx(negative_log_likelihood(log_p, gold), abs=1e-3)
