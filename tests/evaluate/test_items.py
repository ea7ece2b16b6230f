"""Items of files, templates with their fields, and worked examples; whatever is wrong is said in a line."""

import csv
import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from jaxlm.config import (
    Choices,
    DrawnShots,
    Generation,
    LastWord,
    ListedShots,
    MinimalPairs,
    Perplexity,
    Records,
    ZeroShot,
)
from jaxlm.config.errors import Failure, UsageError
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.generation import _question
from jaxlm.evaluate.prompts import opened
from jaxlm.evaluate.records import read, root_of
from jaxlm.evaluate.template import render, values

ROWS = [{"id": i, "text": f'number "{i}", 日本\n', "label": i % 3} for i in range(12)]


@pytest.fixture
def data(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "rows.json").write_text(json.dumps({"data": ROWS}))
    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t")):
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    (tmp_path / "short.csv").write_text('a,b\n1,"2\n2"\n3\n')
    (tmp_path / "long.tsv").write_text("a\tb\n1\t2\n1\t2\t3\t4\n")
    (tmp_path / "book.txt").write_text("front\n = One =\nfirst\n = Two =\nsecond\n")
    nested = [{"title": "t", "parts": [{"context": c, "qas": [{"q": c + q} for q in "xy"]} for c in "ab"]}]
    (tmp_path / "nested.json").write_text(json.dumps({"data": nested}))
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        for name in ("data/b.jsonl", "data/a.jsonl"):
            archive.writestr(name, lines)
        archive.writestr("junk/._a.jsonl", b"\xff\xfe")
    return tmp_path


@pytest.mark.parametrize(
    "records",
    [
        Records("rows.jsonl"),
        Records("lines.json", format="jsonl"),
        Records("rows.json", rows="data"),
        Records("rows.csv"),
        Records("rows.tsv"),
    ],
)
def test_every_format_gives_the_same_texts(data, records):
    found = read(records, data)
    assert [one["text"] for one in found] == [one["text"] for one in ROWS]
    assert [str(one["label"]) for one in found] == [str(one["label"]) for one in ROWS]


def test_texts_whole_cut_and_by_line(data):
    assert len(read(Records("book.txt"), data)) == 1
    pieces = read(Records("book.txt", split=r"(?m)^ = .* =$"), data)
    assert [one["text"] for one in pieces] == ["front\n", " = One =\nfirst\n", " = Two =\nsecond\n"]
    assert [one["text"] for one in read(Records("book.txt", format="lines"), data)][1] == " = One ="


def test_objects_that_lie_in_others_know_their_fields(data):
    found = read(Records("nested.json", rows="data.parts.qas"), data)
    assert [(one["q"], one["context"], one["title"]) for one in found] == [
        (c + q, c, "t") for c in "ab" for q in "xy"
    ]


def test_an_archive_in_the_order_of_names_and_some_of_each(data):
    found = read(Records("sets.zip", members="data/*.jsonl", each=2), data)
    assert [(one["file"], one["id"]) for one in found] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    with pytest.raises(Failure, match=r"junk/._a.jsonl is no jsonl"):
        read(Records("sets.zip"), data)


def test_limits_first_or_drawn(data):
    def ids(**limits):
        return [one["id"] for one in read(Records("rows.jsonl", **limits), data)]

    assert ids(limit=3) == [0, 1, 2]
    assert ids(limit=99) == list(range(12))
    drawn = ids(limit=5, seed=1)
    assert drawn == sorted(set(drawn)) == ids(limit=5, seed=1)
    assert drawn != ids(limit=5, seed=2)
    assert ids(limit=5, seed=0) != [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (Records("none.jsonl", source="example.org"), r"there is no .*none.jsonl; it can be got from example.org"),
        (Records(), "Name the directory it is in by --data DIR or JAXLM_DATA"),
        (Records("rows.csv", format="jsonl"), r"rows.csv is no jsonl: line 1: "),
        (Records("rows.json", rows="dota"), "there is no 'dota' among data"),
        (Records("short.csv"), r"short.csv is no csv: line 4: 1 values, and there are 2 columns"),
        (Records("long.tsv"), r"long.tsv is no tsv: line 3: 4 values, and there are 2 columns"),
        (Records("sets.zip", members="*.csv"), "has no items"),
        (Records("rows.json", rows="data.text"), "expected objects, and there is 'number"),
    ],
)
def test_what_is_wrong_with_a_file(data, records, said):
    with pytest.raises((UsageError, Failure), match=said):
        read(records, data)


def test_where_data_are(monkeypatch):
    monkeypatch.setenv("JAXLM_DATA", "/some/where")
    assert root_of(None) == Path("/some/where")
    assert root_of("here") == Path("here")
    monkeypatch.delenv("JAXLM_DATA")
    assert root_of(None) == Path()


ITEM = {"q": "why?", "n": 3, "answers": [{"text": "a"}, {"text": "b"}], "in": {"deep": "x"}, "names": ["u", "v"]}


def test_templates():
    assert render("Q: {q} {n} {in.deep} {} {1} { q }", ITEM) == "Q: why? 3 x {} {1} { q }"
    assert render("{{ q[:3] }} {% for a in answers %}{{ a.text }},{% endfor %}\n", ITEM) == "why a,b,\n"
    assert values("{answers.text}", ITEM) == ["a", "b"]
    assert values("{names}", ITEM) == ["u", "v"]
    assert values("{q}", ITEM) == ["why?"]
    # A field's own braces are text.
    assert render("{q}", {"q": "{n}", "n": 1}) == "{n}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{quesion}", r"no field \{quesion\}; nearest: "),
        ("{in.dep}", r"no field \{in.dep\}; nearest: deep"),
        ("{names} and", r"\{names\} is a list, expected text or a number"),
        ("{{ quesion }}", "fails: UndefinedError: 'quesion' is undefined"),
        ("{{ q.__class__.__mro__ }}", "reaches for what it may not have"),
        ("{% for %}", "fails: TemplateSyntaxError"),
        ("{{ n / 0 }}", "fails: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_template(template, said):
    with pytest.raises(UsageError, match=said):
        render(template, ITEM)


def test_worked_examples(data):
    def worked(item):
        return f"{item['id']}!"

    records = Records("rows.jsonl", limit=3)
    assert opened(records, ZeroShot(), data, worked)[1] == ""
    items, before = opened(records, ListedShots(("one", "two")), data, worked)
    assert (before, len(items)) == ("one\n\ntwo\n\n", 3)
    items, before = opened(records, DrawnShots(Records("rows.jsonl"), 4, seed=0), data, worked)
    shown = [int(one.rstrip("!")) for one in before.split()]
    assert len(set(shown)) == 4
    # What was shown is not asked, and as many are asked as were to be.
    assert [one["id"] for one in items] == [i for i in range(12) if i not in shown][:3]
    assert opened(records, DrawnShots(Records("rows.jsonl"), 4, seed=0), data, worked)[1] == before
    assert opened(records, DrawnShots(Records("rows.jsonl"), 4, seed=1), data, worked)[1] != before
    with pytest.raises(UsageError, match=r"shots.count is 12: of rows.jsonl no item is left to ask"):
        opened(records, DrawnShots(Records("rows.jsonl"), 12), data, worked)
    with pytest.raises(UsageError, match=r"shots.count is 13: rows.jsonl has 12 items"):
        opened(records, DrawnShots(Records("rows.jsonl"), 13), data, worked)


@pytest.mark.parametrize(("take", "right"), [("first", "1"), ("last", "2")])
def test_the_right_answer_is_taken_as_the_drawn_one_is(take, right):
    task = Generation(prompt="", answer="#1 then #2", answer_pattern=r"#(\d)", take=take, metrics=("number",))
    assert _question(task, {}, "").right == (right,)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Perplexity("p", Records("rows.jsonl"), text="{txt}"), "p: items have no field {txt}; nearest: text"),
        (MinimalPairs("m", Records("rows.jsonl")), "m: items have no field {good}"),
        (LastWord("l", Records("rows.jsonl"), text="{id}"), "l: '0' has no word before its last"),
        (
            Choices("c", Records("rows.jsonl"), "{text}", choices=("a", "b"), answer="{label}"),
            "c: the answer '2' is no choice's label: these are 0, 1",
        ),
        (
            Choices("c", Records("rows.jsonl"), "{text}", choices=("a",), answer="{label}"),
            "c: an item has 1 choices and 1 labels",
        ),
        (
            Choices("c", Records("rows.jsonl"), "{text}", choices=("a", "b"), labels=("x",), answer="x"),
            "c: an item has 2 choices and 1 labels",
        ),
        (
            Choices("c", Records("rows.jsonl"), "{id}?", choices=("a", " "), answer="0"),
            "c: the choices of '0?' are 'a', ' ': one is empty",
        ),
        (
            Generation("g", Records("rows.jsonl"), "{text}", answer="{label}", answer_pattern="x"),
            "g: no right answer in ['0']: answer_pattern is 'x'",
        ),
        (
            Generation("g", Records("rows.jsonl"), "{id}", answer="no {label}", metrics=("exact_match", "number")),
            "g: no right answer in ['no 0'] is a number: answer_pattern is ''",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_said_before_a_model_is_there(data, task, said):
    with pytest.raises(UsageError) as error:
        ask(task, data)
    assert str(error.value).startswith(said)


def test_the_hash_is_of_what_is_asked(data):
    base = Generation("g", Records("rows.jsonl"), "{text}", answer="{label}")
    shots = [DrawnShots(Records("rows.jsonl"), 2, seed=seed) for seed in (0, 0, 1)]
    changed = [{"shots": shot} for shot in shots] + [
        {"prompt": "{text} "},
        {"data": Records("rows.jsonl", limit=2)},
    ]
    hashes = [ask(dataclasses.replace(base, **one), data).hash for one in ({}, *changed)]
    assert hashes[1] == hashes[2]
    assert hashes[0] == hashes[5]
    assert len({*hashes}) == 4
