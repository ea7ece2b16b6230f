"""`jaxlm distill api` as it is used: killed, stopped, over budget, misspelt."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from jaxlm.cli.distill_api import main
from jaxlm.config import Conversations
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import conversations, messages
from tests.distill.stub import reply, stubbed

QUESTIONS = [{"prompt": f"question {i}", "answer": str(i)} for i in range(8)]


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The command's words for a stub, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))

    def of(stub, *more):
        url = stub if isinstance(stub, str) else stub.url
        return ["q.jsonl", "--teacher", url, "--model", "m", "--out", "t.jsonl", "--timeout", "5", *more]

    return of


def test_what_is_written_is_what_training_reads(words, tmp_path, capsys):
    with stubbed(lambda body, tries: reply(body, f"it is {body['messages'][-1]['content'][-1]}")) as stub:
        more = ("--verify", "number", "--samples", "2", "--system", "Be brief.", "--price", "1", "1")
        assert main(words(stub, *more)) == 0
        found = [messages(one.text) for one in conversations(Conversations(("t.jsonl",)))]
        assert [one[-1]["content"] for one in found] == [f"it is {i}" for i in range(8)]
        assert found[0][:2] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "question 0"},
        ]
        assert "8 conversations of 8 prompts: t.jsonl" in capsys.readouterr().out
        rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
        known = rows[3]["provenance"]
        assert known["prompt"] == "q.jsonl:4"
        assert known["sample"] == 0
        assert known["filters"] == ["finished", "parse", "verify", "distinct"]
        assert (known["model"], known["answered_by"]) == ("m", "stub-1")
        assert known["usage"] == {"prompt_tokens": 10, "completion_tokens": 5}
        assert known["parameters"] == {"temperature": 1.0, "max_tokens": 512}
        assert len(known["key"]) == 64
        assert known["time"].endswith("Z")
        report = json.loads((tmp_path / "t.report.json").read_text())
        assert report["filters"][-1] == {"name": "distinct", "seen": 16, "dropped": {"said before": 8}}
        assert (report["kept"], report["samples"], report["dollars"]) == (8, 16, "0.000240")
        # Again: nothing is asked, and every byte is the same.
        before = (tmp_path / "t.jsonl").read_bytes()
        assert main(words(stub, *more)) == 0
        assert (tmp_path / "t.jsonl").read_bytes() == before
        assert len(stub.bodies) == 16


CALL = "import sys; from jaxlm.cli.distill_api import main; sys.exit(main(sys.argv[1:]))"


def started(argv):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CALL, *argv]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_killed_it_goes_on_where_it_was(words, tmp_path, capsys):
    """Nothing that was answered is asked again: at most what was in flight is, and that counts as paid."""
    ready = threading.Event()

    def slow(body, tries):
        if len(stub.bodies) > 3 * 4:
            ready.set()
        time.sleep(0.04)
        return reply(body)

    argv = ("--samples", "5", "--concurrency", "3", "--price", "1", "1", "--budget", "1")
    with stubbed(slow) as stub:
        child = started(words(stub, *argv))
        assert ready.wait(20)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stderr.close()
        time.sleep(0.1)
        before = len(stub.bodies)
        assert 12 < before < 40
        assert not (tmp_path / "t.jsonl").exists()
        assert main(words(stub, *argv)) == 0
        asked = Counter(stub.tries)
        asks = [json.dumps([{"role": "user", "content": one["prompt"]}]) for one in QUESTIONS]
        assert set(asked) == {(one, seed) for one in asks for seed in range(5)}
        assert len(stub.bodies) <= 40 + 3
        lost = int(re.search(r"(\d+) requests were in flight", capsys.readouterr().err)[1])
        assert sum(count > 1 for count in asked.values()) <= lost <= 3
        texts = [json.loads(line)["messages"][-1]["content"] for line in (tmp_path / "t.jsonl").open()]
        assert texts == [f"question {i} #{s}" for i in range(8) for s in range(5)]


def test_stopped_it_waits_for_what_is_in_flight(words, capsys):
    def slow(body, tries):
        time.sleep(0.2)
        return reply(body)

    with stubbed(slow) as stub:
        child = started(words(stub, "--concurrency", "2"))
        deadline = time.monotonic() + 20
        while len(stub.bodies) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        said = child.communicate(timeout=10)[1]
        assert child.returncode == 75
        assert "interrupted" in said
        left = 8 - len(stub.bodies)
        assert f"{left} answers are left to do" in said
        assert main(words(stub)) == 0
        assert len(stub.bodies) == 8, "what was in flight had arrived"


def test_a_budget_ends_it_with_75(words, tmp_path, capsys):
    with stubbed() as stub:
        price = ("--price", "1000000", "1000000", "--max-tokens", "8")
        assert main(words(stub, *price, "--dry-run")) == 0
        most = len("userquestion 0") + 16 + 64 + 8
        assert f"8 answers are to be had by 8 requests, at most ${8 * most}.00" in capsys.readouterr().out
        assert not (tmp_path / "t.jsonl.cache").exists()
        assert main(words(stub, *price, "--budget", str(most + 15), "--concurrency", "1")) == 75
        said = capsys.readouterr().err
        assert f"$30.00 of ${most + 15}.00 spent. 6 answers are left to do for at most ${6 * most}.00" in said
        assert main(words(stub, *price, "--budget", "1000")) == 0
        assert len(stub.bodies) == 8


def test_failures_are_named_and_may_be_allowed(words, tmp_path, capsys):
    def picky(body, tries):
        wrong = body["messages"][-1]["content"] in ("question 1", "question 2")
        return (400, {"error": {"message": "not so"}}) if wrong else reply(body)

    with stubbed(picky) as stub:
        with pytest.raises(Failure, match=r"2 of 8 requests failed: 2 x 400 not so.*--missing 2"):
            main(words(stub))
        assert not (tmp_path / "t.jsonl").exists()
        assert main(words(stub, "--missing", "2")) == 0
        assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 6
        assert len(stub.bodies) == 10


def test_filters_judge_and_clean(words, tmp_path, capsys):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"q": "is question 3 the same as one two three four five six"}))
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Is question 3 the same as: one two three four five six?"}) + "\n")

    def both(body, tries):
        asked = body["messages"][-1]["content"]
        if body["model"] == "wise":
            assert body["temperature"] == 0.0
            return reply(body, f"Score: {asked.split('question ')[1][0]}")
        return reply(body, f"About {asked}", reason="length" if "7" in asked else "stop")

    with stubbed(both) as stub:
        more = ("--judge", "4", "--judge-model", "wise", "--clean-of", "eval.jsonl", "--shortest", "3")
        assert main(words(stub, *more)) == 0
        assert len(stub.bodies) == 8 + 7
        texts = [json.loads(line)["messages"][-1]["content"] for line in (tmp_path / "t.jsonl").open()]
        assert texts == ["About question 4", "About question 5", "About question 6"]
        report = json.loads((tmp_path / "t.report.json").read_text())
        assert report["prompts_in_evaluation_items"] == 1
        assert [one["name"] for one in report["filters"]] == [
            *("finished", "parse", "length", "clean", "distinct", "judge")
        ]
        with pytest.raises(Failure, match="no answer is left"):
            main(words(stub, *more, "--match", "nothing"))
        assert len(stub.bodies) == 8 + 7


def test_no_key_in_anything_that_is_written(words, tmp_path, monkeypatch, capsys):
    secret = "sk-planted-9876543210"
    monkeypatch.setenv("TEACHERS_KEY", secret)
    with stubbed(lambda body, tries: reply(body, f"{body['messages'][-1]['content']}: {secret}")) as stub:
        assert main(words(stub, "--key-env", "TEACHERS_KEY")) == 0
        assert stub.headers[0]["Authorization"] == f"Bearer {secret}"
    told = {"error": {"message": f"bad {secret}"}}
    refused = pytest.raises(Failure, match=r"refuses: 401 bad \[key\]")
    with stubbed(lambda body, tries: (401, told)) as stub, refused as error:
        main(words(stub, "--key-env", "TEACHERS_KEY", "--seed", "99"))
    out = capsys.readouterr()
    assert secret not in out.out + out.err + str(error.value)
    written = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert len(written) >= 4
    assert not [name for name, content in written.items() if secret.encode() in content]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--temprature", "1"], "no option --temprature; nearest: --temperature"),
        (["--samples", "two"], "invalid int value: 'two'"),
        (["--samples", "0"], "--samples 0"),
        (["--temperature", "warm"], "temperature"),
        (["--temperature", "nan"], "--temperature nan"),
        (["--budget", "5"], "--budget needs --price"),
        (["--price", "1"], "expected 2 arguments"),
        (["--price", "1", "-2"], "no number of dollars"),
        (["--budget", "NaN", "--price", "1", "1"], "no number of dollars"),
        (["--parameter", "effort=low"], "expected NAME=JSON"),
        (["--parameter", "n=3"], "has an option of its own"),
        (["--parameter", "max_completion_tokens=0"], "a positive integer"),
        (["--verify", "maths"], "--verify maths"),
        (["--found", "x"], "--found is for --verify exact"),
        (["--match", "("], "--match: no regular expression"),
        (["--judge-model", "x"], "--judge-model is for --judge N"),
        (["--judge", "5", "--judge-prompt", "nowhere"], "--judge-prompt nowhere: No such file"),
        (["--out", "t.json"], "must end in .jsonl"),
        (["--out", "no/t.jsonl"], "there is no directory"),
        (["--out", "q.jsonl"], "is there already"),
        (["--teacher", "127.0.0.1"], "takes the base of an API"),
        (["--key-env", "NOT_THERE_AT_ALL"], "no such environment variable"),
        (["--clean-of", "nowhere.jsonl"], "there is no file"),
        (["other.jsonl"], "there is no file 'other.jsonl'"),
        (["--model", ""], "--model is needed"),
    ],
)
def test_wrong_words(words, more, message, tmp_path):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        main(words("http://127.0.0.1:9/v1", *more))
    assert [one.name for one in tmp_path.iterdir()] == ["q.jsonl"], "nothing is made"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 9: not JSON"),
        ('{"question": "a"}', "line 9: there is no 'prompt' nor 'messages', only 'question'; set --prompt"),
        ('{"prompt": 3}', "line 9: expected a text"),
        ('{"prompt": "\\ud800"}', "line 9: expected a text"),
        ('{"messages": []}', "line 9: expected a text"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "line 9: the last message is of 'assistant'"),
        ('{"prompt": "a"}', "line 9: there is no answer in 'answer' to verify by"),
        ('{"prompt": "a", "answer": "none"}', "line 9: 'answer' holds no number"),
    ],
)
def test_wrong_prompts(words, line, message, tmp_path):
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(Failure, match=message):
        main(words("http://127.0.0.1:9/v1", "--verify", "number"))


def test_help_and_no_jax(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: jaxlm distill api")
    assert max(map(len, text.splitlines())) <= 110
    check = "import sys, jaxlm.cli.distill_taught as t; sys.exit('jax' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", check], env=environment).returncode == 0
