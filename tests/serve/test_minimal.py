"""The server over HTTP: the texts of `jaxlm generate` and `jaxlm chat`, what likely tokens are, and refusals."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import jax
import numpy as np
import pytest

from jaxlm.cli import main
from jaxlm.config.sampling import Options
from jaxlm.serve import minimal
from jaxlm.serve.chat import open_chat
from jaxlm.serve.generate import generate
from jaxlm.tokenizers.conversation import encode
from jaxlm.train.load import load_run
from tests.serve.loopback import ask, run_of, serving
from tests.tiny import CALL, tokens

SAID = [{"role": "user", "content": "The quick fox?"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def url(run):
    with serving(run) as address:
        yield address


def completed(url, **body):
    status, found = ask(f"{url}/completions", {"model": "tiny", "max_tokens": 12, "seed": 5} | body)
    assert status == 200, found
    return found


def said(url, **body):
    body = {"model": "tiny", "messages": SAID, "max_tokens": 12, "seed": 5} | body
    status, found = ask(f"{url}/chat/completions", body)
    assert status == 200, found
    return found


def test_models(url):
    status, found = ask(f"{url}/models")
    assert status == 200
    assert [one["id"] for one in found["data"]] == ["tiny"]
    assert ask(f"{url}/models/tiny") == (200, found["data"][0])
    assert ask(f"{url}/models/other")[0] == 404


def test_completions_are_those_of_generate(run, url):
    found = completed(url, prompt=["The quick", "def visit"], n=2)
    assert found["object"] == "text_completion"
    assert [one["index"] for one in found["choices"]] == [0, 1, 2, 3]
    options = Options(tokens=12, seed=5, samples=2)
    wanted = ["".join(one) for text in ("The quick", "def visit") for one in generate(run, text, options)]
    assert [one["text"] for one in found["choices"]] == wanted
    assert len(set(wanted)) == 4, "otherwise prompts and numbers may not matter"
    _, tokenizer, _ = load_run(run)
    count = sum(1 + len(tokenizer.encode(text)) for text in ("The quick", "def visit"))
    assert found["usage"]["prompt_tokens"] == count
    assert found["usage"]["total_tokens"] == count + found["usage"]["completion_tokens"]
    unseeded = [completed(url, prompt="The quick", seed=None)["choices"][0]["text"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]
    ids = [tokenizer.bos, *tokenizer.encode("The quick").tolist()]
    greedy = [completed(url, prompt=one, temperature=0)["choices"] for one in ("The quick", ids)]
    assert greedy[0] == greedy[1], "tokens are a prompt, too"


def test_an_answer_is_that_of_chat(run, url):
    found = said(url, n=2)
    wanted = "".join(open_chat(run, Options(tokens=12, seed=5)).say(SAID[0]["content"]))
    assert found["choices"][0]["message"] == {"role": "assistant", "content": wanted, "refusal": None}
    assert found["choices"][1]["message"]["content"] != wanted
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "The quick"}, {"type": "text", "text": " fox?"}]}
    ]
    assert said(url, messages=parts, max_tokens=None, max_completion_tokens=12)["choices"] == said(url)["choices"]


def test_likely_tokens(run, url):
    model, tokenizer, _ = load_run(run)
    found = said(url, logprobs=True, top_logprobs=3, temperature=0.7, top_k=5)["choices"][0]
    told = found["logprobs"]["content"]
    assert b"".join(bytes(one["bytes"]) for one in told).decode("utf-8", "replace") == found["message"]["content"]
    prompt = encode(tokenizer, SAID, generation=True).ids.tolist()
    ids = [_token(tokenizer, bytes(one["bytes"])) for one in told]
    row = np.asarray(prompt + ids)
    log_p = jax.nn.log_softmax(model.logits(model(tokens(row[None]), CALL).hidden, CALL)[0])
    log_p = np.asarray(log_p)[len(prompt) - 1 : -1]
    assert len(ids) > 4
    for one, token, nats in zip(told, ids, log_p):
        best = np.argsort(-nats)[:3]
        assert abs(one["logprob"] - nats[token]) < 2e-5 * max(1, nats.std())
        assert [each["token"] for each in one["top_logprobs"]] == [tokenizer.decode([each]) for each in best]
        assert np.abs([each["logprob"] for each in one["top_logprobs"]] - nats[best]).max() < 1e-4
    columns = completed(url, prompt="The quick", logprobs=2, temperature=0)["choices"][0]
    likely = columns["logprobs"]
    assert {len(one) for one in likely.values()} == {len(likely["tokens"])}
    for token, nats, others in zip(likely["tokens"], likely["token_logprobs"], likely["top_logprobs"]):
        assert max(others.values()) == nats == others[token]
    assert likely["text_offset"][0] == 0
    assert likely["text_offset"] == sorted(likely["text_offset"])
    assert said(url)["choices"][0]["logprobs"] is None


def _token(tokenizer, raw):
    """The token of these bytes."""
    found = [token for token in range(tokenizer.vocab) if tokenizer.bytes_of([token]) == raw]
    assert len(found) == 1, "choose another seed: this answer has a token without a text"
    return found[0]


def test_what_ends_an_answer(run, url):
    whole = completed(url, prompt="The quick", n=2)["choices"]
    assert whole[0]["finish_reason"] == "length"
    text = whole[0]["text"]
    stop = text[len(text) // 2 :][:3]
    cut = completed(url, prompt="The quick", n=2, stop=["never said", stop], logprobs=0)
    choice, other = cut["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")
    assert cut["usage"]["completion_tokens"] < 2 * 12
    assert "".join(choice["logprobs"]["tokens"]).startswith(choice["text"])
    assert choice["logprobs"]["text_offset"][-1] < len(choice["text"])
    assert other["text"] == whole[1]["text"].split(stop)[0], "one of the rows ends by itself"
    # The model's own end, which no text shows.
    for seed in range(100):
        found = completed(url, prompt="fox", n=2, temperature=9, seed=seed)
        if {one["finish_reason"] for one in found["choices"]} == {"stop", "length"}:
            break
    else:
        pytest.fail("no answer ends")
    assert found["usage"]["completion_tokens"] < 2 * 12
    assert "<|end_of_text|>" not in "".join(one["text"] for one in found["choices"])


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        (b"{", 400, None, "not JSON"),
        (b"[1]", 400, None, "must be an object"),
        (b'{"temperature": NaN}', 400, None, "NaN is no JSON"),
        ({"model": "gpt-9"}, 404, "model", "only 'tiny'"),
        ({"model": None}, 400, "model", "must be a name"),
        ({"temperatur": 1}, 400, "temperatur", "unknown field"),
        ({"stream": True}, 400, "stream", "this server has no stream"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "leave it out"),
        ({"temperature": "1"}, 400, "temperature", "must be a number"),
        ({"temperature": -1}, 400, "temperature", "at least 0"),
        ({"temperature": 1e-9}, 400, "temperature", "at least 1e-5"),
        ({"top_p": 0}, 400, "top_p", "above 0"),
        ({"n": 0}, 400, "n", "at least 1"),
        ({"n": 1.5}, 400, "n", "an integer"),
        ({"n": True}, 400, "n", "an integer"),
        ({"seed": 2**40}, 400, "seed", "at most"),
        ({"stop": ""}, 400, "stop", "none of them empty"),
        ({"max_tokens": 0}, 400, "max_tokens", "at least 1"),
        ({"max_tokens": 5000}, 400, "max_tokens", "together at most 256"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, 400, "max_tokens", "one thing"),
        ({"top_logprobs": 3}, 400, "top_logprobs", "needs logprobs"),
        ({"logprobs": 3}, 400, "logprobs", "true or false"),
        ({"messages": []}, 400, "messages", "at least one"),
        ({"messages": [{"role": "user"}]}, 400, "messages", "must have a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages", "refuses these messages: no tools"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages", "half a character"),
        ({"messages": [{"role": "user", "content": "fox " * 900}]}, 400, "messages", "together at most 256"),
    ],
)
def test_refusals(url, body, status, param, message):
    if isinstance(body, dict):
        body = {"model": "tiny", "messages": SAID} | body
    found, reply = ask(f"{url}/chat/completions", body)
    assert (found, reply["error"]["param"]) == (status, param)
    assert message in reply["error"]["message"]
    assert reply["error"]["type"] == "invalid_request_error"


def test_refused_paths_and_prompts(url):
    assert ask(f"{url}/embeddings", {})[0] == 404
    status, reply = ask(f"{url}/completions")
    assert (status, reply["error"]["type"]) == (405, "invalid_request_error")
    for prompt in (None, [], "\ud800", [[]], [1, "a"], [-1], [10**6], {}):
        status, reply = ask(f"{url}/completions", {"model": "tiny", "prompt": prompt})
        assert status == 400, reply
    assert ask(f"{url}/completions", b"[" * 100_000)[0] == 400
    assert ask(f"{url}/completions", {"model": "tiny", "prompt": "a", "messages": SAID})[0] == 400


def test_the_command(run, capsys):
    """A free port, an answer, and an end without complaint."""
    for words, message in (
        (["nowhere"], "does not exist"),
        ([run, "--port", "70000"], "--port 70000"),
        ([run, "--prot", "1"], "unrecognized arguments"),
    ):
        assert main(["serve", *words]) == 2
        assert message in capsys.readouterr().err
    command = [sys.executable, "-m", "jaxlm", "serve", run, "--port", "0", "--name", "mine", "--context", "64"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    ) as child:
        line = child.stdout.readline()
        assert line.startswith("mine, up to 64 tokens, at http://127.0.0.1:")
        address = line.split()[-1]
        assert ask(f"{address}/models")[1]["data"][0]["id"] == "mine"
        taken = address.rsplit(":", 1)[1].removesuffix("/v1")
        assert main(["serve", run, "--port", taken]) == 1
        assert f"port {taken}: Address already in use" in capsys.readouterr().err
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


def test_who_hangs_up_is_passed_over(run, monkeypatch):
    """The second of three requests is given up while the first is answered."""
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def slow(served, body):
        asked.append(body["prompt"])
        begun.set()
        assert go_on.wait(20)
        return {}

    monkeypatch.setattr(minimal, "completions", slow)
    with serving(run) as url:
        place = urllib.parse.urlsplit(url)

        def send(prompt):
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": prompt}))
            return connection

        first = send("first")
        assert begun.wait(20)
        second, third = send("second"), send("third")
        time.sleep(0.2)
        second.close()
        time.sleep(0.2)
        go_on.set()
        assert [one.getresponse().status for one in (first, third)] == [200, 200]
        assert asked == ["first", "third"]
        for one in (first, third):
            one.close()
