"""What `run` and `show` share: from the words of a command line to an experiment."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.cli import text
from jaxlm.config.check import check
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import OF_INITIAL, Experiment, OfInitial
from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from jaxlm.config.paths import Leaf, element, field_docs, option_name, type_name, walk
from jaxlm.config.suggest import show
from jaxlm.config.surgery import Cut


@dataclasses.dataclass(frozen=True)
class Request:
    """An experiment as its file has it (`base`) and as it was asked for, with the command's own options."""

    name: str
    base: Experiment
    experiment: Experiment
    options: dict[str, str]
    words: list[str]
    """The changes as they were written."""
    help: bool


def parse(argv: list[str], options: tuple[str, ...], usage: str, bare: tuple[str, ...] = ()) -> Request:
    """Loads, overrides and checks; raises UsageError with everything that is wrong.

    `options` take a value each, `bare` ones none.
    """
    given, words = take(argv, options, bare)
    wants_help = any(word in ("-h", "--help") for word in words)
    words = [word for word in words if word not in ("-h", "--help")]
    if not words or words[0].startswith("-"):
        raise UsageError(f"the experiment comes first: {usage}")
    asked, changes = _of_initial(load_experiment(words[0]), words[1:])
    base = asked
    if run := given.get("init", base.initial):
        from jaxlm.runs.initial import taken  # most commands need no run

        base = dataclasses.replace(taken(dataclasses.replace(base, initial=run)), initial=base.initial)
    start = base
    if any(word.startswith("model:") for word in changes):
        from jaxlm.families.sizes import sized

        start, changes = sized(base, changes)
    experiment = apply(start, changes, options + bare)
    if experiment.cut != asked.cut or asked.cut != Cut():
        from jaxlm.runs.initial import settled

        experiment = settled(asked, experiment)
    if "init" in given:
        experiment = dataclasses.replace(experiment, initial=given["init"])
    if not wants_help:
        check(experiment)
        if experiment.initial or experiment.teacher:
            from jaxlm.runs.initial import pinned

            experiment = pinned(experiment)
        what_hash(experiment)  # a custom objective must be there
    return Request(words[0], base, experiment, given, words[1:], wants_help)


def take(argv: list[str], names: tuple[str, ...], bare: tuple[str, ...] = ()) -> tuple[dict[str, str], list[str]]:
    """Splits `--name value` and `--name=value` of names, and `--name` of bare ones, from the other words."""
    given: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--") and name in bare and not equals:
            given[name] = ""
            continue
        if not word.startswith("--") or name not in names:
            rest.append(word)
            continue
        value = value if equals else next(words, "--")
        if value.startswith("--") or not value:
            raise UsageError(f"--{name} has no value")
        given[name] = value
    return given, rest


def _of_initial(base: Experiment, words: list[str]) -> tuple[Experiment, list[str]]:
    """The experiment with what is to be the initial run's, `model:of_initial`, and the other words."""
    for field in OF_INITIAL:
        if f"{field}:{option_name(OfInitial)}" in words:
            base = dataclasses.replace(base, **{field: OfInitial()})
            words = [word for word in words if word != f"{field}:{option_name(OfInitial)}"]
    return base, words


def values(tree: Experiment) -> dict[str, str]:
    """What every field and choice holds, as it is written on a command line, by path."""
    return {
        one.path: show(one.value) if isinstance(one, Leaf) else option_name(type(one.value)) for one in walk(tree)
    }


def changes(base: Experiment, tree: Experiment) -> list[str]:
    """A line for each field that is not as the file has it; a switch brings its fields along."""
    before = values(base)
    return [
        f"{path}: {before[path]} -> {value}" if path in before else f"{path}: {value}"
        for path, value in values(tree).items()
        if before.get(path) != value
    ]


def fields(experiment: Experiment) -> str:
    """Everything that can be set, with its value, type and meaning."""
    docs = _docs(experiment)
    rows = []
    for one in walk(experiment):
        if isinstance(one, Leaf):
            rows.append((f"--{one.path}", show(one.value), _meaning(one.hint, docs.get(one.path, ""))))
        else:
            names = ", ".join(option_name(cls) for cls in one.classes if cls is not type(one.value))
            rows.append((f"{one.path}:{option_name(type(one.value))}", "", f"or {names}"))
    return text.table(("field", "now", "meaning"), rows)


def _meaning(hint: Any, doc: str) -> str:
    """A field's docstring, its type where it has none, and the names it can take."""
    kind = "values" if element(hint) is not None else type_name(hint)
    if not doc or kind.startswith("one of"):
        return f"{kind}. {doc}".removesuffix(". ") if doc else kind
    return doc


def _docs(node: object, prefix: str = "") -> dict[str, str]:
    found = {}
    for field in dataclasses.fields(node):
        path, value = f"{prefix}{field.name}", getattr(node, field.name)
        found[path] = field_docs(type(node)).get(field.name, "")
        for i, each in enumerate(value) if isinstance(value, tuple) else ():
            found |= _docs(each, f"{path}.{i}.") if dataclasses.is_dataclass(each) else {}
        found |= _docs(value, f"{path}.") if dataclasses.is_dataclass(value) else {}
    return found
