"""From the name of a file or module to the experiment, study or tasks in it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.paths import misfits, type_name
from jaxlm.config.records import Records
from jaxlm.config.study import Study
from jaxlm.config.task_check import check_task
from jaxlm.config.tasks import Perplexity, Task

TEXTS = (".txt", ".jsonl")
"""Endings of texts, which can be given in place of a file of tasks."""

T = TypeVar("T")


def load_experiment(name: str) -> Experiment:
    """The experiment of a file (`experiments/quickstart.py`) or module (`experiments.quickstart`).

    Raises UsageError when there is no such file, it has no `experiment()`, or that fails.
    """
    return _one(name, "experiment", Experiment)


def load_study(name: str) -> Study:
    """The study of a file or module with a function `study()`. Raises UsageError as `load_experiment` does."""
    return _one(name, "study", Study)


def _one(name: str, function: str, kind: type[T]) -> T:
    result = _made(name, function, kind.__name__)
    if not isinstance(result, kind):
        raise UsageError(f"{name}: {function}() returned {type(result).__name__}, expected {kind.__name__}")
    _check_types(name, result)
    return result


def load_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of a file or module: what its `tasks()` returns.

    Raises UsageError as `load_experiment` does, for what is no task, and for tasks of one name.
    """
    result = _made(name, "tasks", "tuple[Task, ...]")
    known = typing.get_args(Task)
    if not isinstance(result, tuple) or not result:
        raise UsageError(f"{name}: tasks() returned {type(result).__name__}, expected a tuple with tasks")
    for one in result:
        if type(one) not in known:
            names = ", ".join(each.__name__ for each in known)
            raise UsageError(f"{name}: tasks() has a {type(one).__name__}, expected one of {names}")
        _check_types(f"{name}: {one.name}", one)
    if twice := {one.name for one in result if sum(each.name == one.name for each in result) > 1}:
        raise UsageError(f"{name}: several tasks are named {min(twice)}")
    return result


def load_all_tasks(names: Iterable[str], change: Callable[[Task], Task] = lambda task: task) -> tuple[Task, ...]:
    """The tasks of files and modules, each changed, and of texts (.txt, .jsonl) their perplexity.

    Raises UsageError as `load_tasks` and `check_task` do, for a text that is not there, and for tasks of one name,
    by which results are told apart.
    """
    made = [(name, change(task)) for name in names for task in _tasks(name)]
    refuse_twice([(name, task.name) for name, task in made])
    for _, task in made:
        check_task(task)
    return tuple(task for _, task in made)


def refuse_twice(tasks: Iterable[tuple[str, str]]) -> None:
    """Raises UsageError for tasks, each a file and a name in it, of which two have one name."""
    known: dict[str, str] = {}
    for file, name in tasks:
        if name in known:
            where = f"in {known[name]} and {file}" if file != known[name] else f"in {file}"
            raise UsageError(f"several tasks are named {name}, {where}: results are told apart by their names")
        known[name] = file


def _tasks(name: str) -> tuple[Task, ...]:
    if not name.endswith(TEXTS):
        return load_tasks(name)
    if not Path(name).is_file():
        raise UsageError(f"there is no {name}")
    return (Perplexity(name=Path(name).stem, data=Records(path=str(Path(name).resolve()))),)


def _made(name: str, function: str, returns: str) -> Any:
    """What a function of a user's file or module returns."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _guard(name, lambda: _import_file(name) if _is_file(name) else _import_module(name))
    make = getattr(module, function, None)
    if not callable(make):
        raise UsageError(f"{name}: no function {function}(){_instead(module, function, returns)}")
    return _guard(name, make)


def _check_types(name: str, tree: Any) -> None:
    wrong = [f"  {path} is {value!r}, expected {type_name(hint)}" for path, hint, value in misfits(tree)]
    if wrong:
        raise UsageError(f"{name}: wrong types\n" + "\n".join(wrong))


def _instead(module: ModuleType, function: str, returns: str) -> str:
    """What to do about a file without the function: it may be of another kind."""
    commands = {"experiment": "run", "study": "study", "tasks": "eval"}
    for other, command in commands.items():
        if other != function and callable(getattr(module, other, None)):
            return f", but {other}(): jaxlm {command} takes it"
    return f"; add `def {function}() -> {returns}: ...`"


def directory(name: str) -> Path:
    """Where the file of an experiment lies that has been loaded by this name."""
    return Path(name if _is_file(name) else sys.modules[name].__file__).parent


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _import_file(name: str) -> ModuleType:
    path = Path(name)
    if not path.is_file():
        raise UsageError(_missing(name))
    # experiments build upon one another, from wherever they are run
    for root in (one.parent for one in path.resolve().parents if one.name == "experiments"):
        sys.path += [] if str(root) in sys.path else [str(root)]
    # registered before it runs, as dataclasses look their module up
    label = "_jaxlm_experiment_" + "_".join(path.resolve().with_suffix("").parts[1:])
    spec = importlib.util.spec_from_file_location(label, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{name}: an experiment is a Python file (.py)")
    module = sys.modules[label] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(_missing(name)) from None
        raise


def _missing(name: str) -> str:
    here = sorted(str(path) for path in Path("experiments").rglob("*.py") if path.name != "__init__.py")
    stems = {Path(path).stem: path for path in here}
    close = difflib.get_close_matches(name, here, 3, 0.5)
    close += [stems[one] for one in difflib.get_close_matches(Path(name).stem, stems, 3, 0.5)]
    shown = list(dict.fromkeys(close))[:3] or here[:3]
    hint = "; nearest:\n" + "\n".join(f"  {one}" for one in shown) if shown else f" in {os.getcwd()}"
    return f"no experiment {name}{hint}"


def _guard(name: str, act):
    """Runs a user's code; what it raises becomes one line with the place."""
    try:
        return act()
    except UsageError:
        raise
    except SyntaxError as error:
        raise UsageError(f"{name}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        frames = [
            one for one in traceback.extract_tb(error.__traceback__) if one.filename.endswith(Path(name).name)
        ]
        place = f"{name}:{frames[-1].lineno}" if frames else name
        raise UsageError(f"{place}: {type(error).__name__}: {error}") from None
