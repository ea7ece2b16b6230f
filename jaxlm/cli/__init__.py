"""The command `jaxlm`: the first word picks a module of this package, which is imported only then.

Exit codes: 0 done, 1 failure, 2 usage, 75 saved and to be run again, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import jaxlm
from jaxlm.config.errors import Failure, UsageError

COMMANDS = {
    "run": "train an experiment; run again, it resumes",
    "show": "what an experiment comes to: config, parameters, FLOPs, memory",
    "plan": "what a run will come to on chips that are not there",
    "generate": "text from a model",
    "chat": "a conversation with a model",
    "serve": "a model behind an OpenAI-compatible API",
    "tokenizer": "train a tokenizer on text files",
    "eval": "how good a model is, by tasks over local files",
    "contamination": "which items of tasks a model was trained on",
    "embed": "how alike texts are to a model",
    "distill": "a small model that learns from a large one, or from one behind an API",
    "quantize": "a model in fewer bits, and what that costs",
    "import": "a model of Hugging Face's or a GGUF file as a run",
    "export": "a run as Hugging Face keeps models",
    "study": "arms x seeds of an experiment, and which differences are more than noise",
    "laws": "scaling laws of runs, and the best model of a budget",
    "runs": "list, show and compare runs",
    "report": "one self-contained page of a run",
    "doctor": "what is wrong with this machine and what to do",
}
"""Every command has a module of its name with `main(argv) -> exit code`; its docstring is its help."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; `argv` excludes the program's name."""
    words = sys.argv[1:] if argv is None else argv
    name = "jaxlm"
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            lines = "\n".join(f"  {name:13} {text}" for name, text in COMMANDS.items())
            print(f"usage: jaxlm COMMAND ...\n\n{lines}\n\njaxlm COMMAND --help tells more")
            return 0 if words else 2
        if words[0] in ("-V", "--version"):
            print(f"jaxlm {jaxlm.__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise UsageError(_unknown(words[0]))
        name = f"jaxlm {words[0]}"
        command = importlib.import_module(f"jaxlm.cli.{words[0]}")
        if words[1:2] in (["-h"], ["--help"]):
            print((command.__doc__ or "").strip())
            return 0
        code = command.main(words[1:])
        sys.stdout.flush()
        return code
    except (UsageError, Failure) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left; nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _unknown(word: str) -> str:
    if word.endswith(".py"):
        return f"no command {word}; to train it: jaxlm run {word}"
    close = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    return f"no command {word!r}; " + (f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}")
