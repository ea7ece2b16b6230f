"""usage: jaxlm serve MODEL_OR_RUN [--port N] [--host H] [--name NAME] [--context N]

A small OpenAI-compatible server of one model: /v1/models, /v1/completions and /v1/chat/completions (by the
chat template of its tokenizer). Requests are answered one at a time and whole: "stream" is refused. The
address is printed once requests are taken; Ctrl-C or SIGTERM ends it after those that have begun. It asks for
no key: who reaches the port may use it. Needs the extra serve: pip install 'jaxlm[serve]'

  MODEL_OR_RUN         a run directory or its name in runs/, a directory of Hugging Face's, or a .gguf file
  --port 8000          0 is any free port
  --host 127.0.0.1     the address to listen at; 0.0.0.0 is every one of this machine
  --name NAME          what requests call the model; by default the last part of MODEL_OR_RUN
  --context N          most tokens of a prompt and its answer; by default as many as it was trained with
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlm.cli import environment, models
from jaxlm.cli.generate import Parser
from jaxlm.config.errors import UsageError


def parse(argv: list[str]) -> Any:
    """What was asked for. Raises UsageError."""
    parser = Parser(prog="jaxlm serve", add_help=False, allow_abbrev=False)
    parser.add_argument("run", metavar="MODEL_OR_RUN")
    for name, kind, default in (
        ("port", int, 8000),
        ("host", str, "127.0.0.1"),
        ("name", str, ""),
        ("context", int, 0),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    found = parser.parse_args(argv)
    if not 0 <= found.port < 2**16:
        raise UsageError(f"--port {found.port}: expected 0 (any) to 65535")
    if found.context < 0:
        raise UsageError(f"--context {found.context}: expected a positive number")
    return found


def main(argv: list[str]) -> int:
    """Serves until it is told to end. Returns the exit code."""
    asked = parse(argv)
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(asked.run, ["serve", *argv]))
    environment.prepare(["serve", *argv])

    from jaxlm.serve.minimal import opened, serve

    served = opened(run, asked.name or Path(asked.run.rstrip("/")).name, asked.context)

    def say(address: str) -> None:
        print(f"{served.name}, up to {served.context} tokens, at {address}", flush=True)

    serve(served, asked.host, asked.port, say)
    return 0
