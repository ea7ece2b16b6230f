"""A teacher behind an OpenAI-compatible API: asked once for each answer, however often the program is killed."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from jaxlm.config.errors import Failure
from jaxlm.distill.api.cache import Cache
from jaxlm.distill.api.exchange import Response, Send, Unreached
from jaxlm.distill.api.pace import Budget, Limits, Pace, backoff
from jaxlm.distill.request import (
    Asking,
    Price,
    Prompt,
    Reply,
    Rubbish,
    Unit,
    body,
    error_in,
    key,
    most_tokens,
    reply_of,
    units,
    usage_of,
)
from jaxlm.distill.sample import Sample

HOPELESS = (401, 402, 403, 404, 405)
"""Statuses that every further request would have, too."""
MAYBE_PAID = (502, 504)
"""A gateway gave up on a request that may have been answered behind it."""


class Stopped(Exception):
    """Asking ended before all was answered; what was answered is kept. `left` counts the answers missing."""

    def __init__(self, why: str, left: int):
        super().__init__(why)
        self.left = left


@dataclass(frozen=True)
class _Again:
    """A request that failed and may not fail another time."""

    problem: str
    after: float | None
    """Seconds that the server asks to be left alone."""
    paid: bool
    """What was reserved for it counts as spent."""


class Teacher:
    """A model at an address, and the cache of its answers. Not to be used by several threads."""

    def __init__(
        self,
        url: str,
        send: Send,
        asking: Asking,
        cache: Cache,
        *,
        limits: Limits = Limits(),
        price: Price | None = None,
        budget: Decimal | None = None,
        say: Callable[[str], None] = lambda text: None,
        progress: Callable[[int], None] = lambda answers: None,
    ):
        self.url, self.send, self.asking, self.cache, self.limits = url, send, asking, cache, limits
        self.price, self.say, self.progress, self.noise = price, say, progress, random.Random()
        self.stop = threading.Event()
        """Set, no further request is begun; those in flight are waited for."""
        past = (self._dollars(*tokens) if dollars is None else dollars for dollars, *tokens in cache.spent())
        self.budget = Budget(budget, sum(past, Decimal(0)), self.stop)
        self.pace = Pace(limits.rate, self.stop)
        self.lock, self.row = threading.Lock(), 0
        self.extra = 0
        """Prompt tokens beyond those of `most_tokens` that a reply has told of: what its template writes."""
        self.failed: list[tuple[Unit, str]] = []
        """Requests that were given up, and why."""
        self.requests = 0
        """Sent by this object, tries included."""
        self.end: Failure | Stopped | None = None

    def complete(self, prompts: Sequence[Prompt], samples: int = 1, most: int = 1) -> Iterator[Sample]:
        """`samples` answers to each prompt, up to `most` with one request, those of the first prompt first: in that
        order whatever arrives when. An answer that could not be had is missing, and its request in `failed`.

        Raises, once what was in flight has arrived, Stopped where the budget or `stop` ended it, and Failure where
        the teacher refuses everything.
        """
        keys = {key(self.asking, one.messages, index) for one in prompts for index in range(samples)}
        todo = list(units(self.asking, prompts, samples, most, self.cache.known(keys)))
        self.failed, self.row, self.end = [], 0, None
        self._ask_all(todo)
        if isinstance(self.end, Stopped):
            self.end.left = len(keys) - len(self.cache.known(keys))
        if isinstance(self.end, Failure) or (self.end is not None and self.end.left):
            raise self.end
        for prompt in prompts:
            for index in range(samples):
                name = key(self.asking, prompt.messages, index)
                if found := self.cache.answer(name):
                    choice, origin = found
                    yield Sample(
                        prompt, index, choice.text, choice.finish_reason, name, origin, choice.logprobs, choice.more
                    )

    def left(self, prompts: Sequence[Prompt], samples: int, most: int) -> tuple[int, int, Decimal]:
        """(Answers missing, requests for them, dollars that these can cost at most)."""
        keys = {key(self.asking, one.messages, index) for one in prompts for index in range(samples)}
        todo = list(units(self.asking, prompts, samples, most, self.cache.known(keys)))
        dollars = (self._dollars(*self._most(one)) for one in todo)
        return sum(len(one.keys) for one in todo), len(todo), sum(dollars, Decimal(0))

    # --- threads -------------------------------------------------------------------------------------------

    def _ask_all(self, todo: Sequence[Unit]) -> None:
        waiting, dispatch = iter(todo), threading.Lock()

        def work() -> None:
            try:
                while True:
                    with dispatch:  # requests are begun in order, so the budget ends at the same one each time
                        unit = None if self._ended() else next(waiting, None)
                        most = unit and self._reserve(unit)
                        if most is None:
                            return
                    self._ask(unit, most)
            except Failure as error:
                self._finish(error)
            except BaseException as error:
                self._finish(Failure(f"{type(error).__name__}: {error}"))
                raise

        threads = [threading.Thread(target=work) for _ in range(min(self.limits.concurrency, len(todo)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # an interruption of the caller's: threads would go on by themselves
            self.stop.set()
            raise

    def _ended(self) -> bool:
        if self.stop.is_set() and self.end is None:
            self._finish(Stopped("interrupted", 0))
        return self.end is not None

    def _finish(self, why: Failure | Stopped) -> None:
        """The first reason to end is the reason."""
        with self.lock:
            if self.end is None or (isinstance(self.end, Stopped) and isinstance(why, Failure)):
                self.end = why
        self.stop.set()

    def _reserve(self, unit: Unit) -> tuple[int, int] | None:
        """The tokens that a request can cost, once the budget allows them; None where it will not."""
        most = self._most(unit)
        if self.budget.reserve(self._dollars(*most)):
            return most
        if not self._ended():
            self._finish(Stopped("the budget does not allow another request", 0))
        return None

    # --- one request -----------------------------------------------------------------------------------------

    def _ask(self, unit: Unit, most: tuple[int, int]) -> None:
        """Sends a request until it is answered, refused or given up; `most` is reserved for it."""
        content = json.dumps(body(self.asking, unit)).encode()
        named = ""
        for tries in range(1, self.limits.tries + 1):
            if not self.pace.wait():
                self.budget.settle(self._dollars(*most), Decimal(0))
                self._ended()
                return
            number = self.cache.begin(unit.keys, self.asking.model, time.time(), most, self._kept(*most))
            named = named or f"{unit.keys[0][:32]}-{number}"
            again = self._try(unit, number, named, content, most)
            if again is None:
                return
            late = (again.after or 0.0) > self.limits.patience
            if tries == self.limits.tries or late:
                if not again.paid:
                    self.budget.settle(self._dollars(*most), Decimal(0))
                asked = f"; it asks to wait {again.after:.0f} s" if late else ""
                self._give_up(unit, again.problem + asked)
                return
            if again.paid and (most := self._reserve(unit)) is None:
                return
            seconds = backoff(self.limits, tries, again.after, self.noise)
            if again.after:
                self.pace.hold(again.after)
            self.say(f"{again.problem}: {unit.prompt.name} is asked again in {seconds:.1f} s")
            self.stop.wait(seconds)

    def _try(self, unit: Unit, number: int, named: str, content: bytes, most: tuple[int, int]) -> _Again | None:
        """Sends a request once; None where there is nothing left to do."""
        with self.lock:
            self.requests += 1
        began = time.time()
        try:
            response = self.send(content, {"Idempotency-Key": named})
        except Unreached as error:
            return self._again(number, str(error), most, None, error.sent == "maybe")
        if response.status == 200:
            self._take(unit, number, response, most, began)
            return None
        problem = f"{response.status} {error_in(response.body)}".strip()
        if response.status == 429 or response.status >= 500:
            return self._again(number, problem, most, response, response.status in MAYBE_PAID)
        self._record(number, "refused", problem, (0, 0), response.body)
        self.budget.settle(self._dollars(*most), Decimal(0))
        if response.status in HOPELESS:
            self._finish(Failure(f"{self.url} refuses: {problem}"))
        self._give_up(unit, problem)
        return None

    def _again(
        self, number: int, problem: str, most: tuple[int, int], response: Response | None, paid: bool
    ) -> _Again:
        """Writes down what may go right another time; a reply that never came may be paid for."""
        raw, after = (response.body, response.retry_after) if response else (b"", None)
        self._record(number, "lost" if paid else "refused", problem, most if paid else (0, 0), raw)
        if paid:
            self.budget.settle(self._dollars(*most), self._dollars(*most))
        return _Again(problem, after, paid)

    def _take(self, unit: Unit, number: int, response: Response, most: tuple[int, int], began: float) -> None:
        """A reply of status 200: its answers, or what is wrong with it."""
        try:
            reply = reply_of(response.body, len(unit.keys))
        except Rubbish as error:
            try:
                usage = usage_of(json.loads(response.body)) or most
            except (ValueError, RecursionError):
                usage = most
            self._record(number, "rubbish", f"{error.kind}: {error}", usage, response.body)
            self.budget.settle(self._dollars(*most), self._dollars(*usage))
            self._give_up(unit, f"rubbish ({error.kind}): {error}")
            return
        usage = reply.usage or most
        now = time.time()
        origin = self._origin(unit, reply, now, now - began)
        self.cache.answered(number, now, reply, usage, self._kept(*usage), origin)
        self.budget.settle(self._dollars(*most), self._dollars(*usage))
        with self.lock:
            self.row = 0
            self.progress(len(unit.keys))
            self.extra = max(self.extra, usage[0] - most_tokens(self.asking, unit)[0])

    def _origin(self, unit: Unit, reply: Reply, now: float, seconds: float) -> dict[str, object]:
        usage = reply.usage and {"prompt_tokens": reply.usage[0], "completion_tokens": reply.usage[1]}
        return {
            "teacher": self.url,
            "model": self.asking.model,
            "answered_by": reply.model,
            "asking": self.asking.digest,
            "parameters": dict(self.asking.parameters),
            "seed": None if self.asking.seed is None else self.asking.seed + unit.first,
            "choices": len(unit.keys),
            "usage": usage,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "seconds": round(seconds, 3),
        }

    def _record(self, number: int, state: str, problem: str, usage: tuple[int, int], raw: bytes = b"") -> None:
        self.cache.failed(number, time.time(), state, problem, usage, self._kept(*usage), raw)

    def _give_up(self, unit: Unit, problem: str) -> None:
        with self.lock:
            self.failed.append((unit, problem))
            self.row += 1
            row = self.row
        if row >= self.limits.failures:
            self._finish(Failure(f"{row} requests failed one after another, the last: {problem}"))

    # --- money -----------------------------------------------------------------------------------------------

    def _most(self, unit: Unit) -> tuple[int, int]:
        """The tokens that a request can cost, with what this server was seen to add."""
        prompt, completion = most_tokens(self.asking, unit)
        return prompt + self.extra, completion

    def _dollars(self, prompt: int, completion: int) -> Decimal:
        return self._kept(prompt, completion) or Decimal(0)

    def _kept(self, prompt: int, completion: int) -> Decimal | None:
        return self.price.of(prompt, completion) if self.price else None


def reasons(failed: Sequence[tuple[Unit, str]]) -> Counter[str]:
    """How many requests failed for each reason."""
    return Counter(problem for _, problem in failed)
