"""usage: jaxlm distill api PROMPTS ... --teacher URL --model NAME --out FILE.jsonl [OPTION ...]

Answers of a model behind an OpenAI-compatible API as conversations to train on (data:conversations). Every
answer is kept in a cache and paid for once: stopped anywhere, even killed, the same command goes on. Its exit
code is 75 where a budget or an interruption stopped it.

  PROMPTS              .jsonl files: a line has a "prompt" or "messages", and the right "answer" for --verify
  --teacher URL        the base of the API, such as http://127.0.0.1:8000/v1
  --model NAME         what the API calls the model
  --out FILE.jsonl     the conversations, each with its origin; FILE.report.json says what was dropped
  --cache FILE         answers that were paid for; by default OUT.cache
  --key-env NAME       the environment variable that holds the API's key
  --prompt, --answer   names of the two fields; by default prompt and answer
  --system TEXT        instructions before each prompt that has none
  --limit N            only the first N prompts
  --dry-run            says what would be asked and what it can cost, and sends nothing

How each prompt is asked (whatever changes here is asked anew):
  --samples 1          answers to each prompt
  --temperature 1.0    with none it is not sent; so with --top-p (none) and --seed (0; one more for each)
  --max-tokens 512     most tokens of an answer
  --stop TEXT ...      texts that end an answer
  --parameter N=JSON   a further field of the request's body, may be repeated

How hard, and for how much:
  --together 1         answers to a prompt that one request asks for (n)
  --concurrency 4      requests in flight; --rate N requests begun in a minute
  --timeout 120        seconds for a reply; --tries 6 of a request that gets none, or 429 or 5xx
  --price IN OUT       dollars for a million tokens read and written
  --budget DOLLARS     no request is sent that could exceed it, all that the cache has cost included
  --missing 0          requests that may fail for good before nothing is written

What is kept, in this order:
  --cut                also answers that ended at --max-tokens
  --match REGEX        answers in which it is found
  --shortest, --longest N      characters
  --verify HOW         number: the last number is the right answer's; exact: the text is, or what the regular
                       expression --found finds last
  --clean-of FILE ...  nothing that shares 13 words in a row with items: files of tasks (.py), .jsonl or .txt
  --data DIR           where the items of tasks are, for --clean-of
  --repeats            also answers that a prompt has had already
  --novelty R          ROUGE-L below R with all kept before; --among prompt (by default) or all
  --judge N            answers that a judge gives at least N of 10; by default the teacher judges, but for
                       --judge-url, --judge-model, --judge-key-env, --judge-price, --judge-tokens 512
                       and --judge-prompt FILE, which holds {prompt} and {answer}
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from jaxlm.cli.generate import Parser
from jaxlm.config.errors import AGAIN, UsageError
from jaxlm.config.suggest import nearest

NAME = "jaxlm distill api"
TAKEN = ("model", "messages", "n", "seed", "stream", "temperature", "top_p", "stop", "max_tokens")
"""Fields of a request that have an option of their own."""


def main(argv: list[str]) -> int:
    """Asks, filters and writes. Returns the exit code."""
    if argv[:1] in (["-h"], ["--help"]):
        print((__doc__ or "").strip())
        return 0
    asked = parse(argv)
    from jaxlm.cli.distill_taught import teach

    return AGAIN if teach(asked) else 0


def parse(argv: list[str]) -> argparse.Namespace:
    """What was asked for. Raises UsageError."""
    parser = Parser(prog=NAME, add_help=False, allow_abbrev=False)
    parser.add_argument("prompts", metavar="PROMPTS", nargs="*")
    for name, kind, default in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, default=default, dest=_field(name))
    for name in ("cut", "repeats", "dry-run"):
        parser.add_argument(f"--{name}", action="store_true", dest=_field(name))
    for name in ("price", "judge-price"):
        parser.add_argument(f"--{name}", nargs=2, type=_dollars, dest=_field(name))
    parser.add_argument("--stop", nargs="+", default=[])
    parser.add_argument("--clean-of", nargs="+", default=[], dest="clean_of")
    parser.add_argument("--parameter", action="append", default=[], type=_parameter)
    known = [action.option_strings[0] for action in parser._actions if action.option_strings]
    for word in argv:
        if word.startswith("--") and word != "--" and (option := word.split("=")[0]) not in known:
            close = ", ".join(nearest(option, known))
            raise UsageError(f"no option {option}; nearest: {close}")
    found = parser.parse_intermixed_args(argv)
    _check(found)
    return found


def _field(name: str) -> str:
    return name.replace("-", "_")


def _dollars(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of dollars") from None
    if not value.is_finite() or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of dollars")
    return value


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text == "none" else kind(text)

    read.__name__ = f"{kind.__name__} (or none)"
    return read


def _parameter(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name in TAKEN:
        raise argparse.ArgumentTypeError(f"{name} has an option of its own, or is set by this command")
    try:
        return name, json.loads(value, parse_constant=lambda word: json.loads(""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=JSON, such as 'effort=\"low\"'") from None


OPTIONS: tuple[tuple[str, Callable[[str], Any], Any], ...] = (
    *(
        (name, str, "")
        for name in ("teacher", "model", "out", "cache", "key-env", "system", "match", "found", "data")
    ),
    *((name, str, "") for name in ("judge-url", "judge-model", "judge-key-env", "judge-prompt", "verify")),
    ("prompt", str, "prompt"),
    ("answer", str, "answer"),
    ("among", str, "prompt"),
    *((name, int, 0) for name in ("limit", "missing", "shortest", "longest")),
    ("samples", int, 1),
    ("together", int, 1),
    ("temperature", _or_none(float), 1.0),
    ("top-p", _or_none(float), None),
    ("seed", _or_none(int), 0),
    ("max-tokens", int, 512),
    ("concurrency", int, 4),
    ("rate", float, 0.0),
    ("timeout", float, 120.0),
    ("tries", int, 6),
    ("budget", _dollars, None),
    ("novelty", float, None),
    ("judge", float, None),
    ("judge-tokens", int, 512),
)
"""(Name, kind, default) of options of one value."""
NEEDED = ("teacher", "model", "out")


def _check(o: argparse.Namespace) -> None:
    """What can be known to be wrong before anything is read. Raises UsageError."""
    for name in NEEDED:
        if not getattr(o, name):
            raise UsageError(f"--{name} is needed; {NAME} --help tells more")
    if not o.prompts:
        raise UsageError(f"PROMPTS are needed: at least one .jsonl file; {NAME} --help tells more")
    inf = float("inf")
    limits = {
        "samples": o.samples >= 1,
        "together": 1 <= o.together <= 128,
        "temperature": o.temperature is None or 0 <= o.temperature < inf,
        "top-p": o.top_p is None or 0 < o.top_p <= 1,
        "max-tokens": o.max_tokens >= 1,
        "concurrency": 1 <= o.concurrency <= 1024,
        "rate": 0 <= o.rate < inf,
        "timeout": 0 < o.timeout < inf,
        "tries": o.tries >= 1,
        "limit": o.limit >= 0,
        "missing": o.missing >= 0,
        "shortest": o.shortest >= 0,
        "longest": o.longest >= o.shortest or not o.longest,
        "novelty": o.novelty is None or 0 < o.novelty <= 1,
        "among": o.among in ("prompt", "all"),
        "verify": o.verify in ("", "number", "exact"),
        "judge": o.judge is None or 0 <= o.judge <= 10,
        "judge-tokens": o.judge_tokens >= 1,
    }
    for name, good in limits.items():
        if not good:
            raise UsageError(f"--{name} {getattr(o, _field(name))}: {NAME} --help tells what it takes")
    for name in ("match", "found"):
        try:
            re.compile(getattr(o, name))
        except re.error as error:
            raise UsageError(f"--{name}: no regular expression: {error}") from None
    _check_pairs(o)


def _check_pairs(o: argparse.Namespace) -> None:
    """What makes sense only together."""
    if o.budget is not None and not o.price:
        raise UsageError("--budget needs --price IN OUT, dollars for a million tokens read and written")
    if o.found and o.verify != "exact":
        raise UsageError("--found is for --verify exact")
    if o.judge is None and (given := [name for name in _judging(o) if getattr(o, name)]):
        raise UsageError(f"--{given[0].replace('_', '-')} is for --judge N")
    if o.judge is not None and o.budget is not None and o.judge_model not in ("", o.model) and not o.judge_price:
        raise UsageError("--budget counts the judge's tokens too: --judge-price IN OUT is needed")
    if not o.out.endswith(".jsonl"):
        raise UsageError(f"--out {o.out}: the name must end in .jsonl, by which data:conversations knows it")
    if not Path(o.out).absolute().parent.is_dir():
        raise UsageError(f"--out {o.out}: there is no directory {Path(o.out).absolute().parent}")


def _judging(o: argparse.Namespace) -> list[str]:
    return [name for name in vars(o) if name.startswith("judge_") and name != "judge_tokens"]
