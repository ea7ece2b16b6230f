"""Tasks of vectors: with vectors that are known, and with those of a tiny model."""

import dataclasses
import json
import math
import re

import jax
import numpy as np
import pytest
from scipy import stats

from jaxlm import config
from jaxlm.config import Clustering, Generation, Logistic, Neighbors, Probe, Records, Retrieval, Similarity, Vectors
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.sampling import Options
from jaxlm.config.task_check import check_task
from jaxlm.evaluate import vector_tasks
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.results import Subject
from jaxlm.evaluate.vectors import vectors_of
from jaxlm.sampling.embed import embed
from jaxlm.tokenizers.bytes import ByteTokenizer
from tests.evaluate.subjects import texts
from tests.tiny import CALL, random_model

BLOCK = config.Block(config.Attention(2, 2, 8, bias="all"), config.Plain(24, "gelu", bias="all"), config.PostNorm())
ENCODER = config.Encoder(260, 16, 1, block=BLOCK, position=config.Learned(64), head=config.NoHead())
SUBJECT = Subject(random_model(ENCODER), ByteTokenizer(), CALL, 64)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Records(path.name)


@pytest.fixture
def planted(monkeypatch):
    """A text's vector is the numbers it is made of, of length 1."""

    def known(each, how, subject):
        found = np.array([[float(number) for number in text.split()] for text in each])
        return found / np.linalg.norm(found, axis=1, keepdims=True), ()

    monkeypatch.setattr(vector_tasks, "vectors_of", known)


def text(vector):
    return " ".join(f"{one:.5f}" for one in vector)


def metrics(result):
    for one in result.metrics:
        assert one.low - 1e-9 <= one.value <= one.high + 1e-9 or one.name.startswith("ece"), one
    return {one.name: one.value for one in result.metrics}


# --- vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["trained", "mean", "last"])
def test_vectors_are_those_of_embed(pool):
    given = [*texts(40), "same", "same"]
    subject = dataclasses.replace(SUBJECT, pool="first")
    found, notes = vectors_of(given, Vectors(pool), subject)
    wanted = embed(SUBJECT.model, SUBJECT.tokenizer, given, CALL, "first" if pool == "trained" else pool)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert notes == ()


def test_long_texts_are_cut_and_counted():
    given = ["abcdefgh", "abcdefgx", "ab"]
    found, notes = vectors_of(given, Vectors(longest=8), SUBJECT)
    np.testing.assert_allclose(found[0], embed(SUBJECT.model, SUBJECT.tokenizer, ["abcdef"], CALL)[0], atol=1e-5)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert notes == ("2 of 3 texts were longer than 8 tokens, and cut at their end",)
    assert len(vectors_of(["x" * 500], Vectors(), SUBJECT)[1]) == 1
    with pytest.raises(UsageError, match="longest is 99, and the model has 64 positions"):
        vectors_of(["x" * 500], Vectors(longest=99), SUBJECT)
    with pytest.raises(UsageError, match="longest is 2: expected 3 or more"):
        vectors_of(given, Vectors(longest=2), SUBJECT)


def test_states_that_are_not_finite_are_refused():
    broken = jax.tree.map(lambda leaf: leaf * np.nan, SUBJECT.model)
    with pytest.raises(UsageError, match="some texts have no vector"):
        vectors_of(["a"], Vectors(), dataclasses.replace(SUBJECT, model=broken))


# --- tasks ---------------------------------------------------------------------------------------------------


def test_similarity_is_of_the_cosines(tmp_path):
    """Of a tiny model's vectors, by scipy; scores that are the cosines' ranks are found, shuffled ones are not."""
    rng = np.random.default_rng(0)
    one, other = texts(60), texts(60, seed=1)
    a, b = (embed(SUBJECT.model, SUBJECT.tokenizer, each, CALL).astype(float) for each in (one, other))
    cosines = (a * b).sum(axis=1)
    for scores in (np.argsort(np.argsort(cosines)) / 10, rng.permutation(60) / 10):
        rows = [{"sentence1": x, "sentence2": y, "label": float(z)} for x, y, z in zip(one, other, scores)]
        task = Similarity(data=write(tmp_path / "pairs.jsonl", rows))
        result = ask(task, tmp_path).run(SUBJECT)
        found = metrics(result)
        assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-3)
        assert found["pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-3)
        np.testing.assert_allclose([item["cosine"] for item in result.items], cosines, atol=1e-5)
    assert abs(found["spearman"]) < 0.4
    rows[3]["label"] = "much"
    with pytest.raises(UsageError, match="similarity: score is 'much': expected a number"):
        ask(Similarity(data=write(tmp_path / "pairs.jsonl", rows)), tmp_path)


def groups(rng, middles, each, spread=0.05):
    labels = np.repeat(np.arange(len(middles)), each)
    vectors = middles[labels] + spread * rng.normal(size=(len(labels), middles.shape[1]))
    return [{"text": text(vector), "label": f"class {label}"} for vector, label in zip(vectors, labels)]


def test_clusters_are_compared_with_labels(tmp_path, planted):
    rows = groups(np.random.default_rng(0), np.eye(6), 20)
    task = Clustering(data=write(tmp_path / "rows.jsonl", rows))
    result = ask(task, tmp_path).run(SUBJECT)
    assert metrics(result) == pytest.approx({"nmi": 1, "ari": 1, "purity": 1})
    (tmp_path / "merged.json").write_text(json.dumps({"low": ["class 0", "class 1"], "high": ["class 2"]}))
    merged = dataclasses.replace(task, merged="merged.json", clusters=3)
    result = ask(merged, tmp_path).run(SUBJECT)
    assert len(result.items) == 60
    assert metrics(result)["purity"] == 1
    assert metrics(result)["ari"] < 0.8
    rows = [{**row, "label": f"class {i % 6}"} for i, row in enumerate(rows)]
    found = metrics(
        ask(dataclasses.replace(task, data=write(tmp_path / "rows.jsonl", rows)), tmp_path).run(SUBJECT)
    )
    assert abs(found["ari"]) < 0.1
    for tree, error, said in (
        ({"low": ["none"]}, UsageError, "names none of the labels, such as 'class 0'"),
        (["class 0"], Failure, "is no JSON of"),
    ):
        (tmp_path / "merged.json").write_text(json.dumps(tree))
        with pytest.raises(error, match=said):
            ask(merged, tmp_path)
    with pytest.raises(UsageError, match="clustering: merged: there is no"):
        ask(dataclasses.replace(merged, merged="nowhere.json"), tmp_path)


@pytest.mark.parametrize("reader", [Logistic(), Neighbors(5)])
def test_probes_learn_from_other_texts(tmp_path, planted, reader):
    rng = np.random.default_rng(1)
    middles = rng.normal(size=(4, 8))
    train, test = (groups(rng, middles, 30, 0.4) for _ in range(2))
    task = Probe(train=write(tmp_path / "a.jsonl", train), data=write(tmp_path / "b.jsonl", test), reader=reader)
    result = ask(task, tmp_path).run(SUBJECT)
    found = metrics(result)
    assert found["accuracy"] > 0.95
    assert found["loss"] < 0.3
    right = np.mean([item["label"] == item["chosen"] for item in result.items])
    assert right == found["accuracy"]
    assert found["loss"] == pytest.approx(-np.mean([item["nats"] for item in result.items]))
    order = rng.permutation(len(train))
    shuffled = [{**row, "label": train[i]["label"]} for row, i in zip(train, order)]
    found = metrics(
        ask(dataclasses.replace(task, train=write(tmp_path / "a.jsonl", shuffled)), tmp_path).run(SUBJECT)
    )
    assert found["accuracy"] < 0.5
    # What is judged is not learned: with labels that are its own nothing is to be found out.
    both = dataclasses.replace(task, train=write(tmp_path / "a.jsonl", [*test[:9], *shuffled, *test[:9]]))
    again = ask(both, tmp_path).run(SUBJECT)
    assert again.notes[0] == "18 of 138 texts of train are among those that are judged, and were left out of it"
    assert metrics(again) == found
    with pytest.raises(UsageError, match="probe: all 120 texts of train are among those that are judged"):
        ask(dataclasses.replace(task, train=task.data), tmp_path)
    test[0]["label"] = "another"
    write(tmp_path / "b.jsonl", test)
    with pytest.raises(UsageError, match="probe: train has no text of the label 'another'"):
        ask(task, tmp_path)


def test_more_than_there_is_is_said_before_there_are_vectors(tmp_path):
    rows = groups(np.random.default_rng(0), np.eye(3), 4)
    one, other = (write(tmp_path / name, each) for name, each in (("a.jsonl", rows[::2]), ("b.jsonl", rows[1::2])))
    with pytest.raises(UsageError, match=r"probe: reader\.k is 7: train has 6 texts"):
        ask(Probe(train=one, data=other, reader=Neighbors(7)), tmp_path)
    with pytest.raises(UsageError, match="clustering: clusters is 7: there are 6 texts"):
        ask(Clustering(data=one, clusters=7), tmp_path)


def test_retrieval_searches_all_documents(tmp_path, planted):
    """Documents at angles of 0, 10, ..., 80 degrees, queries beside them; one query has two."""

    def at(angle):
        return text([np.cos(np.radians(angle)), np.sin(np.radians(angle))])

    own = [(1, 0), (11, 10), (24, 50), (44, 80), (52, 50), (52, 60)]
    rows = [{"question": at(query), "context": at(document)} for query, document in own]
    rows += [{"question": at(71), "context": at(70)}]
    task = Retrieval(data=write(tmp_path / "rows.jsonl", rows), depths=(1, 3), cluster="{context}")
    asked = ask(task, tmp_path)
    assert asked.items == 6
    result = asked.run(SUBJECT)
    assert [item["ranks"] for item in result.items] == [[1], [1], [3], [5], [1, 2], [1]]
    found = metrics(result)
    assert found["recall@1"] == pytest.approx((1 + 1 + 0 + 0 + 0.5 + 1) / 6)
    assert found["recall@3"] == pytest.approx(5 / 6)
    assert found["mrr"] == pytest.approx((1 + 1 + 1 / 3 + 1 / 5 + 1 + 1) / 6)
    assert result.notes == ("searched 6 documents",)
    with pytest.raises(UsageError, match="all items have the same document"):
        ask(Retrieval(data=write(tmp_path / "rows.jsonl", rows[:1])), tmp_path)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Clustering(clusters=-1), "clusters is -1: expected no negative number"),
        (Clustering(restarts=0), "restarts is 0: expected at least 1"),
        (Probe(reader=Neighbors(0)), "reader.k is 0: expected at least 1"),
        (Retrieval(depths=(1, 0)), "depths is (1, 0): expected at least 1"),
        (Similarity(vectors=Vectors(longest=-3)), "vectors.longest is -3: expected no negative number"),
        (Clustering(seed=-1), "clustering: seed is -1: expected 0 to 2147483647"),
        (Probe(reader=Logistic(-1)), "reader.seed is -1: expected 0 to 2147483647"),
        (Retrieval(data=Records(seed=2**31)), "data.seed is 2147483648: expected 0 to 2147483647"),
        (Generation(draw=Options(temperature=-1.0)), "draw.temperature is -1.0: expected 0, or at least 1e-5"),
        (Generation(draw=Options(temperature=math.nan)), "draw.temperature is nan: expected 0, or at least 1e-5"),
        (Generation(draw=Options(top_p=2.0)), "draw.top_p is 2.0: expected above 0 and at most 1"),
        (Generation(draw=Options(top_k=-1)), "draw.top_k is -1: expected 0 (all) or more"),
        (Generation(draw=Options(min_p=1.5)), "draw.min_p is 1.5: expected 0 to 1"),
        (Generation(draw=Options(seed=-1)), "draw.seed is -1: expected 0 to 2147483647"),
    ],
)
def test_what_is_wrong_with_tasks(task, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        check_task(task)
    check_task(type(task)())


def test_items_that_are_lists_get_names(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"test": [["1 0", "x"], ["0 1", "y"]], "other": []}))
    data = Records("rows.json", rows="test", names=("text", "label"))
    assert ask(Clustering(data=data), tmp_path).items == 2
    with pytest.raises(UsageError, match=r"data.names: 1 names, and there is an item of 2 values"):
        ask(Clustering(data=dataclasses.replace(data, names=("text",))), tmp_path)
