"""Labeled texts out of JSON lines and tables, and what is wrong with one by its file and line."""

import json

import pytest

from jaxlm.config import Labeled
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import Document, labeled, others, plain
from jaxlm.corpus.labeled import example


def written(path, *lines):
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{line}\n" for line in text))
    return str(path)


def said(documents):
    return [tuple(example(one.text)) for one in documents]


def test_json_lines(tmp_path):
    path = written(tmp_path / "a.jsonl", {"text": "héllo", "label": 1}, "", {"text": "日本", "label": "0"})
    train, held_out = labeled(Labeled((path,)))
    assert said(train) == [(1, ("héllo",)), (0, ("日本",))]
    assert [one.name for one in train] == ["a.jsonl:1", "a.jsonl:3"]
    assert held_out == []
    assert plain(train[0]) == Document("a.jsonl:1", "héllo")


def test_tables(tmp_path):
    """Quoted values may hold separators and line ends; numbers of lines are those of the file."""
    rows = [["mood", "one", "two"], ["good", '"a, ""b""\nc"', "d"], ["bad", "e", "f\u2028g"]]
    path = written(tmp_path / "a.csv", *(",".join(row) for row in rows))
    data = Labeled((path,), "one", "two", "mood")
    assert said(labeled(data)[0]) == [(1, ('a, "b"\nc', "d")), (0, ("e", "f\u2028g"))]
    assert [one.name for one in labeled(data)[0]] == ["a.csv:3", "a.csv:4"]


def test_quotes_between_tabs_are_characters(tmp_path):
    lines = ("text\tlabel", '"Hello there\t1', 'plain, "so"\t0', 'he is gone "\t0')
    path = written(tmp_path / "a.tsv", *lines)
    assert said(labeled(Labeled((path,)))[0]) == [
        (1, ('"Hello there',)),
        (0, ('plain, "so"',)),
        (0, ('he is gone "',)),
    ]


def test_labels_by_name_and_by_number(tmp_path):
    lines = [{"text": str(i), "label": label} for i, label in enumerate(("b", "c", "a", "b"))]
    path = written(tmp_path / "a.jsonl", *lines)
    assert [label for label, _ in said(labeled(Labeled((path,)))[0])] == [1, 2, 0, 1], "alphabetical"
    named = Labeled((path,), names=("c", "x", "b", "a"))
    assert [label for label, _ in said(labeled(named)[0])] == [2, 0, 3, 2]
    more = written(tmp_path / "b.jsonl", {"text": "x", "label": "aa"})
    train, held_out = labeled(Labeled((path,), held_out_paths=(more,)))
    assert [label for label, _ in said(train)] == [2, 3, 0, 2], "all files together"
    assert said(held_out) == [(1, ("x",))]
    tens = written(tmp_path / "c.jsonl", *({"text": str(i), "label": i} for i in (10, 9)))
    assert [label for label, _ in said(labeled(Labeled((tens,)))[0])] == [10, 9], "numbers are themselves"


def test_no_label_at_all(tmp_path):
    path = written(tmp_path / "a.jsonl", {"text": "a", "answer": "b"})
    assert said(labeled(Labeled((path,), second="answer", label=""))[0]) == [(0, ("a", "b"))]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.jsonl", "{", "line 2: not JSON"),
        ("a.jsonl", [1], "line 2: expected an object, found list"),
        ("a.jsonl", {"text": "a"}, "line 2: there is no 'label', only 'text'; set data.text"),
        ("a.jsonl", {"label": 1, "sentence": "a"}, "line 2: there is no 'text', only 'label', 'sentence'"),
        ("a.jsonl", {"text": " ", "label": 1}, "line 2: 'text' is ' ': expected a text"),
        ("a.jsonl", {"text": 3, "label": 1}, "line 2: 'text' is 3: expected a text"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}', "line 2: 'text' holds half a character"),
        ("a.jsonl", {"text": "a", "label": None}, "line 2: the label is None: expected a name"),
        ("a.jsonl", {"text": "a", "label": True}, "line 2: the label is True: expected a name"),
        ("a.jsonl", {"text": "a", "label": 0.5}, "line 2: the label is 0.5: expected a name"),
        ("a.jsonl", {"text": "a", "label": "x"}, "line 2: the label 'x' is none of data.names: '0', '1'"),
        ("a.csv", "a,b,c", "line 2: 3 values, and the first line has 2 names"),
        ("a.csv", 'a,"b"x', "cannot read .*a.csv'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, line, message):
    first = {"text": "a", "label": 1} if name.endswith("jsonl") else "text,label"
    with pytest.raises(Failure, match=message):
        labeled(Labeled((written(tmp_path / name, first, line),), names=("0", "1")))


@pytest.mark.parametrize("label", ["-1", "0.0", "01", "1e3"])
def test_numbers_that_are_no_labels(tmp_path, label):
    """One of them would renumber all others."""
    path = written(tmp_path / "a.jsonl", *({"text": str(one), "label": one} for one in (0, 1, 2, label)))
    with pytest.raises(Failure, match=f"the label '{label}' is no whole number from 0; state what labels mean"):
        labeled(Labeled((path,)))


def test_names_that_stand_twice_and_files_without_texts(tmp_path):
    path = written(tmp_path / "a.jsonl", {"text": "a", "label": "a"})
    with pytest.raises(UsageError, match=r"data.names: a name stands twice"):
        labeled(Labeled((path,), names=("a", "a")))
    empty = written(tmp_path / "b.csv", "text,label")
    with pytest.raises(Failure, match=r"data.held_out_paths: there is no text in these files"):
        labeled(Labeled((path,), held_out_paths=(empty,)))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"data.paths is empty: name at least one .jsonl or .csv or .tsv file"):
        labeled(Labeled())
    path = written(tmp_path / "a.jsonl", {"text": "a", "label": 1})
    with pytest.raises(UsageError, match=r"data.held_out_paths: there is no file"):
        labeled(Labeled((path,), held_out_paths=(str(tmp_path / "b.jsonl"),)))


def test_texts_for_evaluation_are_not_trained_on():
    def document(name, label, text):
        return Document(name, json.dumps([label, text]))

    train = [document("1", 0, "One  text"), document("2", 1, "another")]
    assert others(train, [document("3", 1, "one text")]) == train[1:], "whatever its label"
