"""Runs of words that items share with training documents, against a search without hashes."""

import json
import subprocess
import sys

import numpy as np

from jaxlm import config
from jaxlm.cli import main
from jaxlm.corpus.documents import Document
from jaxlm.evaluate.contamination import Overlap, overlaps, texts_of, training_documents
from jaxlm.runs.directory import open_run, record, release

RNG = np.random.default_rng(0)
WORDS = np.array([f"word{i}" for i in range(300)])


def text(words):
    return " ".join(RNG.choice(WORDS, words))


DOCUMENTS = [Document(f"file:{i}", text(80)) for i in range(30)]


def taken(document, start, words):
    return " ".join(DOCUMENTS[document].text.split()[start : start + words])


def test_what_was_planted_is_found():
    planted = f"{text(10)} {taken(7, 20, 20)} {text(10)}"
    found = overlaps([[text(40)], [planted], [text(30), taken(3, 0, 13)]], DOCUMENTS)
    assert found == [Overlap(28, 0, ""), Overlap(28, 8, "file:7"), Overlap(19, 1, "file:3")]
    assert found[1].share == 8 / 28


def test_one_word_fewer_is_not():
    assert overlaps([[f"{text(9)} {taken(7, 20, 12)} {text(9)}"]], DOCUMENTS)[0].shared == 0
    assert overlaps([[f"{text(9)} {taken(7, 20, 12)} {text(9)}"]], DOCUMENTS, n=12)[0].shared == 1
    halves = [taken(7, 20, 8), taken(7, 28, 8)]
    assert overlaps([[text(20), " ".join(reversed(halves))]], DOCUMENTS)[0].shared == 0


def test_as_a_search_says():
    """Of five words of which each is one of six: many runs are shared, and words that no item has stand between."""
    rng = np.random.default_rng(1)
    few = np.array(["a", "b", "c", "d", "e", "only-in-training"])
    items = [" ".join(rng.choice(few[:5], 30)) for _ in range(20)]
    training = [" ".join(rng.choice(few, 60)) for _ in range(20)]

    def runs(one):
        words = one.replace("only-in-training", "only in training").split()
        return [tuple(words[i : i + 5]) for i in range(len(words) - 4)]

    known = {run for one in training for run in runs(one)}
    wanted = [sum(run in known for run in runs(one)) for one in items]
    found = overlaps([[one] for one in items], [Document(str(i), one) for i, one in enumerate(training)], n=5)
    assert [one.shared for one in found] == wanted
    assert 0 < np.mean(wanted) < 26


def test_the_first_document_is_named():
    twice = [*DOCUMENTS, Document("file:again", DOCUMENTS[7].text)]
    assert overlaps([[taken(7, 20, 20)]], twice)[0].document == "file:7"


def test_case_and_punctuation_do_not_count():
    changed = taken(2, 5, 15).upper().replace(" ", ", ")
    assert overlaps([[changed]], DOCUMENTS)[0] == Overlap(3, 3, "file:2")


def test_short_texts_are_looked_for_whole():
    """Of 8 to 12 words; shorter ones say nothing, wherever they stand."""
    found = overlaps([[taken(2, 5, 9)], [text(9)], [taken(2, 5, 7)], [""]], DOCUMENTS)
    assert found == [Overlap(1, 1, "file:2"), Overlap(1, 0, ""), Overlap(0, 0, ""), Overlap(0, 0, "")]
    assert overlaps([], DOCUMENTS) == []


def test_all_texts_of_an_item_are_taken():
    item = {"question": "a", "answers": [{"text": "b", "start": 3}, "c"], "none": None}
    assert texts_of(item) == ["a", "b", "c"]


def test_data_of_runs_are_read(tmp_path):
    lines = {
        "text.jsonl": {"text": "one document"},
        "talk.jsonl": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        "label.jsonl": {"text": "good", "label": 1},
    }
    for name, row in lines.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    files = {name: (str(tmp_path / name),) for name in lines}
    corpus = config.Corpus(source=config.TextFiles(files["text.jsonl"]))
    for data, wanted in (
        (corpus, "one document"),
        (config.Pairs(of=corpus), "one document"),
        (config.Conversations(paths=files["talk.jsonl"]), "hi\n\nho"),
        (config.Labeled(paths=files["label.jsonl"]), "good"),
    ):
        assert [one.text for one in training_documents(data)] == [wanted]


def test_the_command_names_items(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": one.text}) + "\n" for one in DOCUMENTS))
    rows = [{"text": text(20), "label": "a"}, {"text": taken(4, 0, 20), "label": "b"}, {"text": "x", "label": "a"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ours.py").write_text(
        "from jaxlm.config import Clustering, Records\n"
        "def tasks(): return (Clustering(name='ours', data=Records('rows.jsonl')),)\n"
    )
    assert main(["contamination", "train.jsonl", "ours.py", "--data", ".", "--out", "found.json"]) == 0
    out = capsys.readouterr().out
    assert "ours, item 1: 100% of it, in " in out
    assert out.splitlines()[-1].split()[:5] == ["ours", "3", "1", "1", "0.5000"]
    shares = [one["shared"] for one in json.loads((tmp_path / "found.json").read_text())["items"]["ours"]]
    assert shares == [0, 8, 0]
    assert main(["contamination", "train.jsonl", "ours.py", "--data", ".", "--limit", "1"]) == 0
    assert "item 1" not in capsys.readouterr().out
    source = (tmp_path / "ours.py").read_text()
    (tmp_path / "again.py").write_text(source)
    (tmp_path / "wrong.py").write_text(source.replace("'rows.jsonl'", "'rows.jsonl', split='('"))
    for words, said in (
        (["train.jsonl", "ours.py", "again.py"], "several tasks are named ours, in ours.py and again.py"),
        (["train.jsonl", "ours.py", "--out", "no/found.json"], "--out no/found.json: there is no directory no"),
        (["train.jsonl", "wrong.py"], "ours: data.split is '(', which is no regular expression"),
        (["train.jsonl"], "the following arguments are required: FILE"),
        (["train.jsonl", "ours.py", "--n", "0"], "--n 0"),
        (["nowhere", "ours.py", "--data", "."], "nowhere"),
        (["no.jsonl", "ours.py", "--data", "."], "no.jsonl"),
    ):
        assert main(["contamination", *words]) == 2
        assert said in capsys.readouterr().err


def run_of(name, path="", **changes):
    """A run directory, without what training leaves in it."""
    data = {"data": config.Corpus(source=config.TextFiles((path,)))} if path else {}
    run = open_run(config.Experiment(name, **data, **changes), name)
    release(run)
    return run


def test_what_a_run_started_from_is_searched_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, document in (("first", 4), ("second", 5)):
        (tmp_path / f"{name}.txt").write_text(DOCUMENTS[document].text)
    rows = [{"text": taken(document, 0, 20)} for document in (4, 5, 6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ours.py").write_text(
        "from jaxlm.config import LastWord, Records\n"
        "def tasks(): return (LastWord('ours', Records('rows.jsonl')),)\n"
    )
    command = ("ours.py", "--data", ".", "--out", "found.json")
    run_of("base", "first.txt")
    run_of("tuned", "second.txt", initial="base@0123456789abcdef")
    assert main(["contamination", "tuned", *command]) == 0
    assert "not searched" not in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["shared"] for one in found["items"]["ours"]] == [8, 8, 0]
    assert found["searched"] == ["tuned", "base"]
    # What others trained is not known: it is said of a base, and refused where nothing else is left to search.
    record(run_of("bought"), imported="/models/bought")
    run_of("adapted", "second.txt", initial="bought")
    assert main(["contamination", "adapted", *command]) == 0
    told = "bought: it was imported"
    assert capsys.readouterr().out.splitlines()[-1].endswith(told)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["not_searched"] == [told]
    assert [one["shared"] for one in found["items"]["ours"]] == [0, 8, 0]
    run_of("lost", "second.txt", initial="gone")
    assert main(["contamination", "lost", *command]) == 0
    assert "gone is no run" in capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text('{"model_type": "llama"}')
    for name in ("bought", "theirs"):
        assert main(["contamination", name, *command]) == 2
        assert f"{name} is a model of others" in capsys.readouterr().err
    (tmp_path / "first.txt").unlink()
    assert main(["contamination", "tuned", *command]) == 2
    assert "base: " in capsys.readouterr().err


def test_the_command_needs_no_jax():
    code = "import sys, jaxlm.cli.contamination; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
