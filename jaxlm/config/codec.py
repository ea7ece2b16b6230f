"""Experiments as JSON: written, read back to the identical dataclass, hashed and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment, Where
from jaxlm.config.objective import Custom
from jaxlm.config.paths import alternatives, children, classes, element, hints, misfits, type_name

CLASS = "class"
"""Key of the member's class name where a field is a union."""


ABSENT = "(absent)"
"""Stands for a field that one of two experiments does not have."""


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dicts; a union's member carries its class name under `class`."""
    return _encode(Experiment, experiment)


def _encode(hint: Any, value: Any, *, defaults: bool = True) -> Any:
    if dataclasses.is_dataclass(value):
        named = {CLASS: type(value).__name__} if len(alternatives(hint)) > 1 else {}
        usual = {} if defaults else {field.name: field.default for field in dataclasses.fields(value)}
        return named | {
            name: _encode(inner, each, defaults=defaults)
            for name, inner, each in children(value)
            if defaults or usual[name] != each
        }
    if isinstance(value, tuple):
        return [_encode(element(hint), each, defaults=defaults) for each in value]
    # 500_000 in a field of floats is the same experiment as 500_000.0
    return float(value) if type(value) is int and float in alternatives(hint) else value


def from_json(tree: dict[str, Any]) -> Experiment:
    """The experiment that `to_json` wrote; a field that the file does not have takes its default.

    Raises Failure for a class or field that does not exist.
    """
    experiment = _decode(Experiment, tree, "experiment")
    for path, hint, value in misfits(experiment):
        raise Failure(f"experiment.{path}: {value!r} does not fit, expected {type_name(hint)}")
    return experiment


def _decode(hint: Any, value: Any, path: str) -> Any:
    if element(hint) is not None and isinstance(value, list):
        return tuple(_decode(element(hint), each, f"{path}.{i}") for i, each in enumerate(value))
    if not isinstance(value, dict):
        return value
    members = {cls.__name__: cls for cls in classes(hint)}
    name = value.get(CLASS, next(iter(members)) if len(members) == 1 else None)
    if name not in members:
        raise Failure(f"{path}: unknown class {name!r}, expected one of {', '.join(members) or 'none'}")
    fields = {key: each for key, each in value.items() if key != CLASS}
    known = hints(members[name])
    if unknown := fields.keys() - known.keys():
        raise Failure(f"{path}: {name} has no field {min(unknown)!r}, only {', '.join(known)}")
    decoded = {key: _decode(known[key], each, f"{path}.{key}") for key, each in fields.items()}
    try:
        return members[name](**decoded)
    except TypeError as error:
        raise Failure(f"{path}: {error}") from None


# --- identity ----------------------------------------------------------------------------------------------


def what(experiment: Experiment) -> dict[str, Any]:
    """All that decides what is computed: the experiment without `where`, and the hash of its own code.

    Fields at their defaults are left out, so that a new field changes no hash; defaults themselves may not change.
    Of `initial` and `teacher` it is the digest where there is one: the same parameters may lie anywhere.
    """
    tree = _encode(Experiment, dataclasses.replace(experiment, where=Where()), defaults=False)
    tree["initial"] = named(experiment.initial)[1] or experiment.initial
    if experiment.teacher:
        tree["teacher"] = named(experiment.teacher)[1] or experiment.teacher
    return {"experiment": tree, "sources": sources(experiment)}


def named(parameters: str) -> tuple[str, str]:
    """(run, digest) of `RUN@DIGEST`, as `initial` and `teacher` are written; the digest is empty without one."""
    run, at, digest = parameters.rpartition("@")
    whole = at and len(digest) == 16 and set(digest) <= set("0123456789abcdef")
    return (run, digest) if whole else (parameters, "")


def sources(experiment: Experiment) -> dict[str, str]:
    """sha256 of the module's file for each import string in the experiment."""
    objective = experiment.objective
    return {objective.path: _source_hash(objective.path)} if isinstance(objective, Custom) else {}


def _source_hash(path: str) -> str:
    module, colon, name = path.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UsageError(f"objective {path!r}: expected package.module:name")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UsageError(f"objective {path!r}: no module {module}; is it below the current directory?")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def canonical(tree: Any) -> bytes:
    """The one way a JSON tree is written before it is hashed."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def what_hash(experiment: Experiment) -> str:
    """sha256 of what is computed; `where` does not enter.

    Raises UsageError if a custom objective is missing.
    """
    return hashlib.sha256(canonical(what(experiment))).hexdigest()


def whole_hash(experiment: Experiment) -> str:
    """sha256 of the experiment, `where` included."""
    return hashlib.sha256(canonical(what(experiment) | {"where": to_json(experiment)["where"]})).hexdigest()


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a JSON tree by dotted path; a union's member stands under the union's own path."""
    if isinstance(tree, dict):
        found = {}
        for key, value in tree.items():
            found |= {prefix.rstrip("."): value} if key == CLASS else flat(value, f"{prefix}{key}.")
        return found
    if isinstance(tree, list) and any(isinstance(each, dict) for each in tree):
        return flat({str(i): each for i, each in enumerate(tree)}, prefix)
    return {prefix.rstrip("."): tree}


def difference(a: Experiment, b: Experiment) -> list[tuple[str, Any, Any]]:
    """(path, a's value, b's value) where two experiments differ; ABSENT where one has no such field."""
    one, two = flat(to_json(a)), flat(to_json(b))
    pairs = [(path, one.get(path, ABSENT), two.get(path, ABSENT)) for path in one | two]
    return [each for each in pairs if each[1] != each[2]]
