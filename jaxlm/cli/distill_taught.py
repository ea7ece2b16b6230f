"""From prompts through a teacher's answers to conversations: the work of `jaxlm distill api`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from jaxlm.cli.distill_prompts import dirty, items_of, prompts_of
from jaxlm.cli.text import table
from jaxlm.config.errors import Failure, UsageError
from jaxlm.distill import contamination, judge, novelty, reject
from jaxlm.distill.api import Cache, Limits, Stopped, Teacher, endpoint, reasons, secret_of, sender
from jaxlm.distill.request import Asking, Price, Prompt
from jaxlm.distill.sample import Sample, row
from jaxlm.runs.files import write_atomically

EVERY = 5.0
"""Seconds between two lines of progress."""
REPORT = ".report.json"


def teach(o: argparse.Namespace) -> bool:
    """Asks, filters and writes what is left. Returns whether it was stopped and is to be run again.

    Raises UsageError and Failure.
    """
    report = Path(o.out).with_suffix(REPORT)
    if Path(o.out).exists() and not report.exists():
        raise UsageError(f"--out {o.out} is there already and not of this command: choose another name")
    prompts = prompts_of(o)
    items = items_of(o) if o.clean_of else None
    clean = prompts if items is None else [one for one in prompts if not dirty(items, one)]
    judged = _judge_of(o)  # what is wrong with it is said before the teacher is paid
    url, secret, parameters = endpoint(o.teacher), secret_of(o.key_env), _asked(o)
    with contextlib.closing(Cache(":memory:" if _unwritten(o) else _cache(o))) as cache:
        if cache.lost:
            _say(f"{cache.lost} requests were in flight when this was killed: they count as paid")
        teacher = _teacher(o, url, secret, o.model, parameters, o.price, cache)
        if o.dry_run:
            _foretell(o, teacher, clean, len(prompts) - len(clean))
            return False
        try:
            samples = _complete(o, teacher, clean, o.samples, o.together)
            kept, steps = reject.reject(samples, _filters(o, items))
            if judged:
                judging = judged(cache)
                questions = [judge.question(one, _template(o)) for one in kept]
                found = judge.scores(_complete(o, judging, questions, 1, 1))
                kept, more = reject.reject(kept, {"judge": reject.each(judge.good_enough(found, o.judge))})
                steps += more
                teacher.budget.spent = judging.budget.spent
        except Stopped:
            return True
        _write(o, report, len(prompts), len(prompts) - len(clean), kept, steps, teacher)
    return False


def _cache(o: argparse.Namespace) -> str:
    return o.cache or f"{o.out}.cache"


def _unwritten(o: argparse.Namespace) -> bool:
    """Whether nothing was asked before and nothing is to be: then no file is made."""
    return o.dry_run and not Path(_cache(o)).exists()


# --- what is asked -----------------------------------------------------------------------------------------


def _asked(o: argparse.Namespace) -> dict[str, Any]:
    """Fields of the request's body."""
    extra = dict(o.parameter)
    own = {"temperature": o.temperature, "top_p": o.top_p, "max_tokens": o.max_tokens, "stop": o.stop or None}
    if (limit := extra.get("max_completion_tokens")) is not None:
        if type(limit) is not int or limit < 1:
            raise UsageError(f"--parameter max_completion_tokens={limit}: expected a positive integer")
        own["max_tokens"] = None
    return {name: value for name, value in own.items() if value is not None} | extra


def _teacher(
    o: argparse.Namespace,
    url: str,
    secret: str,
    model: str,
    parameters: dict[str, Any],
    price: Sequence[Decimal] | None,
    cache: Cache,
) -> Teacher:
    asking = Asking(model, parameters, o.seed)
    limits = Limits(concurrency=o.concurrency, rate=o.rate, timeout=o.timeout, tries=o.tries)

    return Teacher(
        url,
        sender(url, secret, o.timeout),
        asking,
        cache,
        limits=limits,
        price=Price(*price) if price else None,
        budget=o.budget,
        say=_say,
    )


def _judge_of(o: argparse.Namespace) -> Callable[[Cache], Teacher] | None:
    """What makes the judge, which shares the cache and the budget. Raises UsageError."""
    if o.judge is None:
        return None
    url = endpoint(o.judge_url or o.teacher)
    secret = secret_of(o.judge_key_env or ("" if o.judge_url else o.key_env))
    model, price = o.judge_model or o.model, o.judge_price or o.price
    _template(o)
    asked = _asked(o)  # what the teacher's API is not sent, the judge's is not
    limit = "max_tokens" if "max_tokens" in asked else "max_completion_tokens"
    parameters = {limit: o.judge_tokens} | ({"temperature": 0.0} if "temperature" in asked else {})
    return lambda cache: _teacher(o, url, secret, model, parameters, price, cache)


def _template(o: argparse.Namespace) -> str:
    if not o.judge_prompt:
        return judge.TEMPLATE
    try:
        text = Path(o.judge_prompt).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--judge-prompt {o.judge_prompt}: {getattr(error, 'strerror', None) or error}") from None
    if not all(part in text for part in ("{prompt}", "{answer}")):
        raise UsageError(f"--judge-prompt {o.judge_prompt}: it must hold {{prompt}} and {{answer}}")
    return text


def _complete(
    o: argparse.Namespace, teacher: Teacher, prompts: Sequence[Prompt], samples: int, most: int
) -> list[Sample]:
    """All answers. Raises Stopped, having said what is left; Failure where more than `o.missing` requests fail."""
    total, requests, _ = teacher.left(prompts, samples, most)
    done, last = 0, time.monotonic()

    def progress(answers: int) -> None:
        nonlocal done, last
        done += answers
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            _say(f"{done} of {total} answers, {_money(teacher)}")

    teacher.progress = progress
    try:
        with _interruptible(teacher):
            found = list(teacher.complete(prompts, samples, most))
    except Stopped as stopped:
        answers, _, dollars = teacher.left(prompts, samples, most)
        cost = f" for at most {_dollars(dollars)}" if teacher.price else ""
        more = "with a larger --budget" if "budget" in str(stopped) else "again"
        _say(f"{stopped}: {_money(teacher)}. {answers} answers are left to do{cost}; run it {more} to go on")
        raise
    if total:
        _say(f"{done} answers of {teacher.asking.model}: {_money(teacher)}")
    if len(teacher.failed) > o.missing:
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons(teacher.failed).most_common(3))
        raise Failure(
            f"{len(teacher.failed)} of {requests} requests failed: {why}. What was answered is kept: run again to "
            f"ask these anew, or go on without them by --missing {len(teacher.failed)}"
        )
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interruptible(teacher: Teacher) -> Iterator[None]:
    """The first signal lets what is in flight arrive, the second ends at once."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        _say("stopping once what is in flight has arrived; again to stop at once")
        teacher.stop.set()

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _money(teacher: Teacher) -> str:
    if teacher.price is None:
        return f"{teacher.requests} requests"
    of = "" if teacher.budget.limit is None else f" of {_dollars(teacher.budget.limit)}"
    return f"{teacher.requests} requests, {_dollars(teacher.budget.spent)}{of} spent"


def _dollars(value: Decimal) -> str:
    """With two to six digits after the point."""
    whole, _, rest = f"{value:.6f}".partition(".")
    return f"${whole}.{rest[:2]}{rest[2:].rstrip('0')}"


def _foretell(o: argparse.Namespace, teacher: Teacher, prompts: Sequence[Prompt], contaminated: int) -> None:
    answers, requests, dollars = teacher.left(prompts, o.samples, o.together)
    cost = f", at most {_dollars(dollars)}" if teacher.price else ""
    print(f"{len(prompts)} prompts x {o.samples}: {answers} answers are to be had by {requests} requests{cost}")
    if contaminated:
        print(f"{contaminated} prompts are in the evaluation items and are not asked")


# --- what is kept ------------------------------------------------------------------------------------------


def _filters(o: argparse.Namespace, items: contamination.Items | None) -> dict[str, reject.Filter]:
    """By name, in the order in which they are applied."""
    verify = reject.right_number if o.verify == "number" else reject.right_text(o.found)

    def group(sample: Sample) -> str:
        return sample.prompt.name if o.among == "prompt" else ""

    chosen = {
        "finished": None if o.cut else reject.each(reject.finished),
        "parse": reject.each(reject.parsed(o.match)),
        "length": reject.each(reject.long_enough(o.shortest, o.longest)) if o.shortest or o.longest else None,
        "verify": reject.each(verify) if o.verify else None,
        "clean": reject.each(contamination.clean(items)) if items else None,
        "distinct": None if o.repeats else reject.distinct,
        "novelty": None if o.novelty is None else novelty.novel(o.novelty, group),
    }
    return {name: one for name, one in chosen.items() if one is not None}


def _write(
    o: argparse.Namespace,
    report: Path,
    prompts: int,
    dirty: int,
    kept: Sequence[Sample],
    steps: Sequence[reject.Step],
    teacher: Teacher,
) -> None:
    """The report, then the conversations. Raises Failure if none are left."""
    tree = {
        "teacher": teacher.url,
        "model": teacher.asking.model,
        "asking": teacher.asking.digest,
        "parameters": dict(teacher.asking.parameters),
        "seed": teacher.asking.seed,
        "prompts": prompts,
        "prompts_in_evaluation_items": dirty,
        "samples": steps[0].seen if steps else len(kept),
        "missing": len(teacher.failed),
        "filters": [{"name": one.name, "seen": one.seen, "dropped": dict(one.reasons)} for one in steps],
        "kept": len(kept),
        "dollars": None if teacher.price is None else str(teacher.budget.spent),
    }
    rows = [
        (one.name, one.seen, one.dropped, ", ".join(f"{n} {why}" for why, n in one.reasons.items()))
        for one in steps
    ]
    print(table(("filter", "seen", "dropped", "because"), rows))
    write_atomically(report, json.dumps(tree, ensure_ascii=False, indent=1) + "\n")
    if not kept:
        raise Failure(
            f"no answer is left after the filters: {report} says what each dropped; {o.out} is not written"
        )
    passed = [one.name for one in steps]
    text = "".join(json.dumps(row(one, passed), ensure_ascii=False) + "\n" for one in kept)
    write_atomically(o.out, text)
    answered = len({one.prompt.name for one in kept})
    print(f"{len(kept)} conversations of {answered} prompts: {o.out}")
