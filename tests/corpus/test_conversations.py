"""Conversations out of JSON lines, and what is wrong with a line by its file and number."""

import json

import pytest

from jaxlm.config import Conversations
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import Document, conversations, decontaminate, messages, spoken

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "héllo"}]
TALK += [{"role": "assistant", "content": "日本"}, {"role": "user", "content": "left unanswered"}]


def written(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return Conversations((str(path),))


def test_prompts_and_messages(tmp_path):
    data = written(
        tmp_path / "a.jsonl", {"prompt": "a", "answer": "b", "id": 3}, "", {"messages": TALK, "prompt": 1}
    )
    found = list(conversations(data))
    assert [one.name for one in found] == ["a.jsonl:1", "a.jsonl:3"]
    assert messages(found[0].text) == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert messages(found[1].text) == TALK[:3], "nothing is learned from what no answer follows"
    assert spoken(found[1]).text == "héllo\n\n日本"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ([1], "line 2: expected an object, found list"),
        (
            {"question": "a", "answer": "b"},
            "no 'prompt' .nor 'messages'., only 'question', 'answer'; set data.prompt",
        ),
        ({"prompt": "a"}, "no 'answer'"),
        ({"prompt": "a", "answer": 7}, "message 2 has no text as its 'content'"),
        ({"messages": "a"}, r"line 2, 'messages': expected a list of \{"),
        ({"messages": [{"role": "user"}]}, "message 1 has no text as its 'content'"),
        ({"messages": [{"from": "gpt", "content": "a"}]}, "message 1 has no text as its 'role'"),
        ({"messages": TALK[:2]}, "nothing is said by the role 'assistant'"),
        ('{"prompt": "a", "answer": "\\ud800"}', "message 2 holds half a character"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, line, message):
    data = written(tmp_path / "a.jsonl", {"prompt": "a", "answer": "b"}, line)
    with pytest.raises(Failure, match=message):
        list(conversations(data))


def test_wrong_paths(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for paths, message in (((), "data.paths is empty"), ((str(tmp_path / "a.txt"),), "is no .jsonl file")):
        with pytest.raises(UsageError, match=message):
            list(conversations(Conversations(paths)))


def test_a_phrase_of_many_contaminates_nothing():
    phrase = "answer the following question as well as you can and think before you speak about it "
    train = [Document(str(i), phrase + f"question {i}") for i in range(12)]
    copied = Document("copied", " ".join(f"word{i}" for i in range(15)))
    held_out = [Document("h", phrase + "another"), Document("c", copied.text)]
    assert decontaminate([*train, copied], held_out) == ([], 13)
    assert decontaminate([*train, copied], held_out, common=10) == (train, 1)
    assert decontaminate([*train, copied], held_out, common=12) == ([], 13)
