"""usage: jaxlm chat MODEL_OR_RUN [--system TEXT] [--prompt TEXT] [--tokens N] [--temperature T] [--seed S]
                  [--top-k K] [--top-p P] [--min-p M]

A conversation with a model, by the chat template of its tokenizer: a line is what you say, its answer is
written as it is drawn. An empty line begins another conversation; the end of the input (Ctrl-D) ends it.

  MODEL_OR_RUN         a run directory or its name in runs/, a directory of Hugging Face's, or a .gguf file
  --system TEXT        instructions before the conversation
  --prompt TEXT        say this, print the answer, and end
  --tokens 500         most tokens of an answer
  --temperature 1.0    divides the logits; 0 takes the likeliest token
  --top-k K            keep the K likeliest tokens
  --top-p P            keep the fewest tokens that hold probability P
  --min-p M            keep tokens at least M times as probable as the likeliest
  --seed 0             the same seed draws the same answers
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from jaxlm.cli import environment, models
from jaxlm.cli.generate import KINDS, Parser, drawn
from jaxlm.cli.text import bold
from jaxlm.config.sampling import Options


def parse(argv: list[str]) -> tuple[dict[str, str], Options]:
    """(run, system and prompt, options). Raises UsageError."""
    parser = Parser(prog="jaxlm chat", add_help=False, allow_abbrev=False)
    parser.add_argument("run", metavar="MODEL_OR_RUN")
    parser.add_argument("--system", default="")
    parser.add_argument("--prompt")
    parser.set_defaults(tokens=500)
    return drawn(parser, argv, KINDS)


def main(argv: list[str]) -> int:
    """Talks until there is nothing more to say. Returns the exit code."""
    given, options = parse(argv)
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(given["run"], ["chat", *argv]))
    environment.prepare(["chat", *argv])

    from jaxlm.serve.chat import open_chat

    chat = open_chat(run, options, given["system"])
    instructions = list(chat.messages)
    for said in _lines() if given["prompt"] is None else [given["prompt"]]:
        if not said.strip():
            chat.messages = list(instructions)
            continue
        for piece in chat.say(said):
            print(piece, end="", flush=True)
        print()
    return 0


def _lines() -> Iterator[str]:
    """Lines of standard input; on a terminal each after a sign that one may speak."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401 - lines can be edited

    while True:
        try:
            yield input(bold("> "))
        except EOFError:
            print()
            return
