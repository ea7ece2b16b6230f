"""The command line as the drills start it: `python tests/drills/program.py run ...`."""

import importlib.util
import sys
import types

from jaxlm.cli import main


def stand_in(name: str, **functions) -> None:
    """A module of that name with these functions, unless the real one is there."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(functions)


if __name__ == "__main__":
    # To be dropped when both are part of every run.
    stand_in("jaxlm.runs.report", write_report=lambda path: "no report")
    stand_in("jaxlm.sampling.text", sample_with_log_probabilities=lambda *_, **__: [])
    sys.exit(main(sys.argv[1:]))
