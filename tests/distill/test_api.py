"""The teacher's client against a server that misbehaves: nothing paid for is lost or asked twice."""

import time
from decimal import Decimal

import pytest

from jaxlm.config.errors import Failure, UsageError
from jaxlm.distill.api import Cache, Limits, Stopped, Teacher, endpoint, secret_of, sender
from jaxlm.distill.reject import finished
from jaxlm.distill.request import Asking, Price, Prompt, Unit, most_tokens
from jaxlm.distill.sample import row
from tests.distill.stub import reply, stubbed

QUICK = Limits(concurrency=4, timeout=0.5, tries=3, wait=0.02, longest_wait=0.1, patience=3.0)
ASKING = Asking("m", {"temperature": 1.0, "max_tokens": 8}, seed=0)
PROMPTS = [Prompt(f"p{i}", ({"role": "user", "content": f"question {i}"},)) for i in range(6)]


def teacher(stub, path, *, asking=ASKING, limits=QUICK, secret="", **more):
    url = endpoint(stub.url)
    return Teacher(url, sender(url, secret, limits.timeout), asking, Cache(str(path)), limits=limits, **more)


def answered(stub, path, prompts=PROMPTS, samples=1, most=1, **more):
    """(The teacher, its samples); the cache is closed again."""
    one = teacher(stub, path, **more)
    try:
        return one, list(one.complete(prompts, samples, most))
    finally:
        one.cache.close()


def texts(samples):
    return [one.text for one in samples]


WANTED = [f"question {i} #{s}" for i in range(6) for s in range(2)]


def test_each_answer_is_asked_for_once(tmp_path):
    with stubbed() as stub:
        _, first = answered(stub, tmp_path / "c", samples=2)
        assert texts(first) == WANTED
        assert len(stub.bodies) == 12
        assert {one["seed"] for one in stub.bodies} == {0, 1}, "otherwise the samples of a prompt may be one"
        _, again = answered(stub, tmp_path / "c", samples=2)
        assert again == first
        assert len(stub.bodies) == 12
        _, more = answered(stub, tmp_path / "c", samples=4, most=3)
        assert len(stub.bodies) == 18
        assert all(one["n"] == 2 and one["seed"] == 2 for one in stub.bodies[12:])
        assert texts(more) == [f"question {i} #{s}" for i in range(6) for s in range(4)]
        assert [one.origin["choice"] for one in more[:4]] == [0, 0, 0, 1]
        new = Prompt("new", ({"role": "user", "content": "new"},))
        _, same = answered(stub, tmp_path / "c", prompts=[PROMPTS[0], new, new, PROMPTS[0]])
        assert texts(same) == ["question 0 #0", "new #0", "new #0", "question 0 #0"]
        assert len(stub.bodies) == 19


@pytest.mark.parametrize(
    "changed",
    [
        Asking("other", ASKING.parameters, 0),
        Asking("m", {**ASKING.parameters, "temperature": 0.9}, 0),
        Asking("m", {**ASKING.parameters, "top_p": 1.0}, 0),
        Asking("m", ASKING.parameters, 1000),
        Asking("m", ASKING.parameters, None),
    ],
)
def test_what_is_asked_otherwise_is_asked_anew(tmp_path, changed):
    with stubbed() as stub:
        answered(stub, tmp_path / "c", PROMPTS[:1])
        answered(stub, tmp_path / "c", PROMPTS[:1], asking=changed)
        assert len(stub.bodies) == 2
        system = Prompt("p0", ({"role": "system", "content": ""}, *PROMPTS[0].messages))
        answered(stub, tmp_path / "c", [system])
        assert len(stub.bodies) == 3
        same = Prompt("elsewhere", PROMPTS[0].messages, answer="7")
        answered(stub, tmp_path / "c", [same])
        assert len(stub.bodies) == 3


def test_order_does_not_depend_on_concurrency(tmp_path):
    def slow_first(body, tries):
        time.sleep(0.1 if body["messages"][0]["content"] in ("question 0", "question 3") else 0.01)
        return reply(body)

    with stubbed(slow_first) as stub:
        found = {}
        for concurrency in (1, 4):
            stub.most_flying = 0
            limits = Limits(concurrency=concurrency, timeout=2.0)
            found[concurrency] = texts(answered(stub, tmp_path / str(concurrency), samples=2, limits=limits)[1])
            assert (stub.most_flying > 1) == (concurrency > 1)
            assert stub.most_flying <= concurrency
        assert found[1] == found[4] == WANTED


def test_rate(tmp_path):
    with stubbed() as stub:
        answered(stub, tmp_path / "c", PROMPTS[:4], limits=Limits(concurrency=4, rate=200.0))
        assert stub.times[-1] - stub.times[0] > 0.7, (
            "three gaps of 0.3 s, but for what a slow machine takes of them"
        )


def stall(handler):
    time.sleep(1.2)


def cut(handler):
    handler.connection.close()


def half(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()


def trickle(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(14):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


ERROR = {"error": {"message": "later", "type": "x"}}


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ((429, ERROR), "429 later"),
        ((500, ERROR), "500 later"),
        ((503, b"<html>busy</html>"), "503 <html>busy"),
        (stall, "no whole reply within 0.5 s"),
        (cut, "the connection broke"),
        (half, "the reply ends too soon"),
        (trickle, "no whole reply within 0.5 s"),
    ],
)
def test_what_may_go_right_is_tried_again(tmp_path, first, problem):
    said = []
    with stubbed(lambda body, tries: first if tries == 1 else reply(body)) as stub:
        one, found = answered(stub, tmp_path / "c", PROMPTS[:2], say=said.append)
        assert texts(found) == ["question 0 #0", "question 1 #0"]
        assert set(stub.tries.values()) == {2}
        assert not one.failed
        assert all(problem in one for one in said), said
        names = [one["Idempotency-Key"] for one in stub.headers]
        assert len(set(names)) == 2, "the tries of a request have one name"


def test_tries_come_to_an_end(tmp_path):
    with stubbed(lambda body, tries: (503, ERROR)) as stub:
        one, found = answered(stub, tmp_path / "c", PROMPTS[:2])
        assert (found, len(one.failed), set(stub.tries.values())) == ([], 2, {3})
        with pytest.raises(Failure, match="4 requests failed one after another, the last: 503 later"):
            answered(stub, tmp_path / "c", limits=Limits(tries=1, failures=4))
    one, found = answered(stub, tmp_path / "c", PROMPTS[:1])
    assert "cannot reach the teacher: Connection refused" in one.failed[0][1]


def test_waits_as_long_as_the_server_says(tmp_path):
    def busy(body, tries):
        return (429, ERROR, {"Retry-After": "0.6"}) if tries == 1 else reply(body)

    with stubbed(busy) as stub:
        _, found = answered(stub, tmp_path / "c", PROMPTS[:1])
        assert len(found) == 1
        assert 0.6 <= stub.times[1] - stub.times[0] < 1.5
    with stubbed(lambda body, tries: (429, ERROR, {"Retry-After": "3600"})) as stub:
        one, _ = answered(stub, tmp_path / "d", PROMPTS[:1])
        assert "it asks to wait 3600 s" in one.failed[0][1]
        assert len(stub.bodies) == 1


@pytest.mark.parametrize("status", [400, 409, 413, 422, 301])
def test_what_is_wrong_with_one_request_is_not_tried_again(tmp_path, status):
    def picky(body, tries):
        wrong = body["messages"][0]["content"] == "question 1"
        return (status, ERROR, {"Location": "http://127.0.0.1:9/"}) if wrong else reply(body)

    with stubbed(picky) as stub:
        one, found = answered(stub, tmp_path / "c")
        assert [sample.prompt.name for sample in found] == ["p0", "p2", "p3", "p4", "p5"]
        assert [(unit.prompt.name, why) for unit, why in one.failed] == [("p1", f"{status} later")]
        assert len(stub.bodies) == 6


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_wrong_with_all_ends_it(tmp_path, status):
    with stubbed(lambda body, tries: (status, ERROR)) as stub:
        with pytest.raises(Failure, match=f"refuses: {status} later"):
            answered(stub, tmp_path / "c", limits=Limits(concurrency=1))
        assert len(stub.bodies) == 1


def choices(body, **changed):
    status, tree = reply(body)
    return status, {**tree, "choices": [{**tree["choices"][0], **changed}]}


RUBBISH = {
    "no JSON": lambda body: (200, b"<html>"),
    "no object": lambda body: (200, [1]),
    "an error": lambda body: (200, ERROR),
    "no choices": lambda body: (200, {"id": "x"}),
    "empty choices": lambda body: (200, {"choices": []}),
    "wrong number": lambda body: reply(body, "a", "b"),
    "no text": lambda body: choices(body, message={"role": "assistant"}),
    "no text at all": lambda body: choices(body, message={"content": None}),
    "half a text": lambda body: choices(body, message={"content": "\ud800"}),
    "no finish_reason": lambda body: choices(body, finish_reason=None),
}


NAMES = {"no text at all": "no text", "half a text": "no text"}


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_no_answer(tmp_path, kind):
    def once(body, tries):
        return RUBBISH[kind](body) if tries == 1 and "0" in body["messages"][0]["content"] else reply(body)

    with stubbed(once) as stub:
        one, found = answered(stub, tmp_path / "c", PROMPTS[:2])
        assert texts(found) == ["question 1 #0"]
        assert one.failed[0][1].startswith(f"rubbish ({NAMES.get(kind, kind)})")
        assert len(stub.bodies) == 2, "it was paid for: only the user may ask again"
        _, found = answered(stub, tmp_path / "c", PROMPTS[:2])
        assert texts(found) == ["question 0 #0", "question 1 #0"]
        assert len(stub.bodies) == 3


def test_an_answer_without_text_may_be_one(tmp_path):
    """It was paid for and would be so again: it is kept, and the filters drop it."""
    thought = {"content": None, "reasoning_content": "hm", "refusal": None}
    cases = [
        (thought, "length", "length", {"reasoning_content": "hm"}),
        ({"content": None, "refusal": "no"}, "stop", "refusal", {"refusal": "no"}),
        ({"content": "x"}, "eos_token", "eos_token", {}),
        ({"content": "cut sho"}, "length", "length", {}),
    ]
    for number, (message, reason, wanted, more) in enumerate(cases):
        with stubbed(lambda body, tries, m=message, r=reason: choices(body, message=m, finish_reason=r)) as stub:
            for _ in range(2):
                _, found = answered(stub, tmp_path / str(number), PROMPTS[:1])
            assert len(stub.bodies) == 1
            assert (found[0].text, found[0].finish_reason) == (message["content"] or "", wanted)
            assert found[0].more == more == row(found[0], [])["provenance"].get("message", {})
            assert finished(found[0]) is not None


def test_failures_in_a_row(tmp_path):
    """Answers in between begin another row."""
    with stubbed(lambda body, tries: reply(body) if body["seed"] % 2 else (400, ERROR)) as stub:
        limits = Limits(concurrency=1, failures=2)
        one, found = answered(stub, tmp_path / "c", PROMPTS[:3], 2, limits=limits)
        assert (len(found), len(one.failed)) == (3, 3)


def test_choices_come_by_their_index(tmp_path):
    def shuffled(body, tries):
        status, tree = reply(body)
        return status, {**tree, "choices": tree["choices"][::-1]}

    with stubbed(shuffled) as stub:
        assert texts(answered(stub, tmp_path / "c", PROMPTS[:1], 3, 3)[1]) == [f"question 0 #{i}" for i in range(3)]


def test_a_stop_lets_what_is_in_flight_arrive(tmp_path):
    """And is none where nothing is left."""
    with stubbed(lambda body, tries: one.stop.set() or reply(body)) as stub:
        for count, left in ((1, 0), (3, 2)):
            one = teacher(stub, tmp_path / str(count), limits=Limits(concurrency=1))
            if left:
                with pytest.raises(Stopped, match="interrupted") as stopped:
                    list(one.complete(PROMPTS[:count]))
                assert stopped.value.left == left
            else:
                assert len(list(one.complete(PROMPTS[:count]))) == 1
            one.cache.close()
        assert len(stub.bodies) == 2


PRICE = Price(Decimal(1_000_000), Decimal(2_000_000))
"""A dollar for a token that is read, two for one that is written."""
MOST = len("userquestion 0") + 16 + 64 + 2 * 8


@pytest.mark.parametrize(("room", "sent"), [(0, 3), (Decimal("-0.01"), 2), (19, 3), (20, 4)])
def test_the_budget_is_never_exceeded(tmp_path, room, sent):
    """Two answers cost 20 each; a third request is sent if its most is left, and its answer makes room again."""
    budget = 2 * 20 + MOST + room
    with stubbed() as stub:
        one = teacher(stub, tmp_path / "c", limits=Limits(concurrency=1), price=PRICE, budget=budget)
        with pytest.raises(Stopped, match="the budget does not allow another request") as stopped:
            list(one.complete(PROMPTS))
        assert (len(stub.bodies), stopped.value.left) == (sent, 6 - sent)
        assert one.budget.spent == 20 * sent <= budget
        assert not one.budget.held
        one.cache.close()
        # It is one budget for all that the cache has cost.
        one = teacher(stub, tmp_path / "c", price=PRICE, budget=budget)
        assert one.budget.spent == 20 * sent
        with pytest.raises(Stopped):
            list(one.complete(PROMPTS))
        one.cache.close()
        assert len(stub.bodies) == sent
        one, found = answered(stub, tmp_path / "c", price=PRICE, budget=6 * MOST)
        assert (len(stub.bodies), len(found), one.budget.spent) == (6, 6, 120)


def test_the_most_that_a_request_costs():
    messages = ({"role": "system", "content": "é"}, {"role": "user", "content": "question"})
    unit = Unit(Prompt("p", messages), 0, ("a", "b", "c"))
    assert most_tokens(ASKING, unit) == (len("system") + 2 + len("userquestion") + 2 * 16 + 64, 3 * 8)
    longer = Asking("m", {"max_completion_tokens": 9})
    assert most_tokens(longer, unit)[1] == 3 * 9
    assert Price(Decimal("0.15"), Decimal("0.6")).of(1_000_001, 3) == Decimal("0.15000195")


def test_the_budget_holds_for_many_at_once(tmp_path):
    budget = 3 * MOST - 1

    def slow(body, tries):
        time.sleep(0.05)
        return reply(body)

    with stubbed(slow) as stub:
        one = teacher(stub, tmp_path / "c", limits=Limits(concurrency=6), price=PRICE, budget=budget)
        with pytest.raises(Stopped):
            list(
                one.complete([*PROMPTS] + [Prompt("x", ({"role": "user", "content": f"q{i}"},)) for i in range(20)])
            )
        one.cache.close()
        assert stub.most_flying == 2, "a third might have exceeded it"
        assert budget - MOST < one.budget.spent <= budget


def test_what_may_have_been_paid_counts(tmp_path):
    with stubbed(lambda body, tries: stall) as stub:
        one, _ = answered(stub, tmp_path / "c", PROMPTS[:1], price=PRICE, budget=10**6)
        assert one.budget.spent == 3 * MOST
        one, _ = answered(stub, tmp_path / "c", [], price=PRICE)
        assert one.budget.spent == 3 * MOST, "the cache remembers"
    with stubbed(lambda body, tries: (503, ERROR)) as stub:
        one, _ = answered(stub, tmp_path / "d", PROMPTS[:1], price=PRICE, budget=10**6)
        assert one.budget.spent == 0
    with stubbed(lambda body, tries: reply(body, usage=None)) as stub:
        one, found = answered(stub, tmp_path / "e", PROMPTS[:1], price=PRICE, budget=10**6)
        assert (one.budget.spent, found[0].origin["usage"]) == (MOST, None)
    for content, cost in ((b"<html>", MOST), ({**reply({"messages": [{"content": ""}]})[1], "choices": []}, 20)):
        with stubbed(lambda body, tries, c=content: (200, c)) as stub:
            one, _ = answered(stub, tmp_path / str(cost), PROMPTS[:1], price=PRICE, budget=10**6)
            assert (one.budget.spent, one.budget.held) == (cost, 0)
    with stubbed(lambda body, tries: reply(body, usage=(500, 5))) as stub:
        one, _ = answered(stub, tmp_path / "f", PROMPTS[:1], price=PRICE, budget=10**6)
        assert one.extra == 500 - (MOST - 16), "a template that writes more than was thought is reckoned with"


@pytest.mark.parametrize("price", [PRICE, None])
def test_what_was_in_flight_when_it_died_counts(tmp_path, price):
    """Without a price, too: the tokens are known, and have the price of the next time."""
    cache = Cache(str(tmp_path / "c"))
    cache.begin(["key"], "m", 0.0, (7, 8), price and price.of(7, 8))
    cache.close()
    with stubbed() as stub:
        one, found = answered(stub, tmp_path / "c", PROMPTS[:1], price=PRICE)
        assert (one.cache.lost, one.budget.spent, len(found)) == (1, 7 + 2 * 8 + 20, 1)


def test_one_process_at_a_time(tmp_path):
    cache = Cache(str(tmp_path / "c"))
    with pytest.raises(Failure, match="is in use: another process"):
        Cache(str(tmp_path / "c"))
    cache.close()
    (tmp_path / "text").write_text("hello " * 500)
    with pytest.raises(Failure, match=r"cannot use .*text as a cache"):
        Cache(str(tmp_path / "text"))
    with pytest.raises(Failure, match="there is no directory"):
        Cache(str(tmp_path / "no" / "c"))


def test_no_key_is_kept_or_told(tmp_path, monkeypatch):
    secret = "sk-planted-0123456789"
    monkeypatch.setenv("A_KEY", secret)

    def gossip(body, tries):
        content = body["messages"][0]["content"]
        if content == "question 0":
            return reply(body, f"your key is {secret}")
        said = {"error": {"message": f"wrong key {secret}"}}
        return (503, said) if content == "question 1" else (400, said)

    said = []
    with stubbed(gossip) as stub:
        one, found = answered(stub, tmp_path / "c", PROMPTS[:3], secret=secret_of("A_KEY"), say=said.append)
        assert {head["Authorization"] for head in stub.headers} == {f"Bearer {secret}"}
    assert found[0].text == "your key is [key]"
    assert said
    assert len(one.failed) == 2
    for trace in (repr(said), repr(one.failed), repr(found), *(file.read_bytes() for file in tmp_path.iterdir())):
        assert secret not in (trace if isinstance(trace, str) else trace.decode("latin-1"))


def test_wrong_addresses_and_keys(monkeypatch):
    for url in ("", "127.0.0.1:8000", "ftp://x/v1", "http://", "http://x:99999/v1", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="takes the base of an API"):
            endpoint(url)
    for url in ("http://me:word@x/v1", "https://x/v1?key=abc"):
        with pytest.raises(UsageError, match="without a key in it") as error:
            endpoint(url)
        assert "word" not in str(error.value)
        assert "abc" not in str(error.value)
    assert endpoint("http://x/v1/") == endpoint("http://x/v1/chat/completions") == "http://x/v1/chat/completions"
    monkeypatch.setenv("BAD", "two words")
    monkeypatch.delenv("NONE", raising=False)
    for name, message in (("sk-123", "not the key itself"), ("NONE", "no such environment"), ("BAD", "is no key")):
        with pytest.raises(UsageError, match=message) as error:
            secret_of(name)
        assert "two words" not in str(error.value)
        assert "sk-123" not in str(error.value)
    assert secret_of("") == ""
