"""The scripts of experiments/benchmarks as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BENCHMARKS = EXPERIMENTS / "benchmarks"


def load(name: str) -> ModuleType:
    """A script, which finds its neighbors as it does when it is run."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        sys.modules[name] = module  # where dataclasses look for their own
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module
