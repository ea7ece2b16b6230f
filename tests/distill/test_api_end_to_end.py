"""Our own server as the teacher, over HTTP."""

import contextlib
import json

import pytest

from jaxlm.cli.distill_api import main
from jaxlm.config import Conversations
from jaxlm.config.sampling import Options
from jaxlm.corpus import conversations, messages
from jaxlm.distill.api import Cache, Limits, Teacher, endpoint, sender
from jaxlm.distill.request import Asking, Prompt
from jaxlm.serve.chat import open_chat
from tests.serve.loopback import run_of, serving


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def url(run):
    with serving(run) as address:
        yield address


def test_a_model_teaches(run, url, tmp_path, monkeypatch, capsys):
    asking = Asking("tiny", {"temperature": 1.0, "max_tokens": 12}, seed=5)
    prompts = [Prompt(name, ({"role": "user", "content": name},)) for name in ("The quick fox?", "And then?")]
    with contextlib.closing(Cache(str(tmp_path / "c"))) as cache:
        teacher = Teacher(
            endpoint(url), sender(endpoint(url), "", 60.0), asking, cache, limits=Limits(concurrency=2)
        )
        found = list(teacher.complete(prompts, samples=2))
        again = list(teacher.complete(prompts, samples=2))
    assert (teacher.requests, teacher.failed) == (4, [])
    assert found == again
    for sample in found:
        options = Options(tokens=12, seed=5 + sample.index)
        assert sample.text == "".join(open_chat(run, options).say(sample.prompt.name))
    assert len({one.text for one in found}) == 4
    assert found[0].origin["answered_by"] == "tiny"
    # The same by the command, whose cache has the answers already.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"prompt": one.name}) + "\n" for one in prompts))
    capsys.readouterr()
    words = ["--teacher", url, "--model", "tiny", "--out", "t.jsonl", "--cache", "c", "--samples", "2"]
    assert main(["q.jsonl", *words, "--max-tokens", "12", "--seed", "5", "--cut"]) == 0
    assert capsys.readouterr().err == "", "nothing is asked"
    rows = [messages(one.text) for one in conversations(Conversations(("t.jsonl",)))]
    assert [one[-1]["content"] for one in rows] == [one.text for one in found]
    assert found[0].origin["usage"]["completion_tokens"] <= 12
