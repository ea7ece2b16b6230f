"""Models as Hugging Face keeps them: a config.json and safetensors, both ways by one table a family."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Shaped

from jaxlm.config import Precision
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import Model as Config
from jaxlm.families.known import family, published, table
from jaxlm.families.table import Entry, Table
from jaxlm.interop import gguf, rearrange, safetensors
from jaxlm.layers.axes import shardings
from jaxlm.layers.contracts import Model
from jaxlm.layers.names import differences, flatten, listed
from jaxlm.models import build
from jaxlm.parallel.layout import Layout

Leaf = tuple[str, tuple[int, ...]]
"""One of our parameters: its name, and its place where layers, or experts, or both are stacked."""
ALIGNMENT = 64
"""Bytes."""
LAYER, EXPERT = "{layer}", "{expert}"


@dataclass(frozen=True)
class Held:
    """One tensor of theirs and the parameters of ours that it holds."""

    name: str
    entry: Entry
    leaves: tuple[Leaf, ...]


class Tensors(Protocol):
    """Weights by name: `shapes` at once, each array when it is asked for."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Shaped[np.ndarray, "..."]:
        """One tensor whole."""


@dataclass(frozen=True)
class Source:
    """A model somewhere, of which no weight has been read."""

    path: Path
    settings: Mapping[str, Any]
    """As in a config.json."""
    tensors: Tensors

    @property
    def family(self) -> ModuleType:
        """The family of its `model_type`. Raises Failure for one that is not known."""
        return family(self.settings.get("model_type", ""))

    @property
    def config(self) -> Config:
        """What jaxlm calls it. Raises Failure for a family or a setting that is not known."""
        return self.family.read(self.settings)


def opened(path: Path) -> Source:
    """The model of a directory or of a GGUF file. Raises Failure for what is missing or damaged."""
    if path.suffix == gguf.SUFFIX:
        return Source(path, *gguf.opened(path))
    return Source(path, _settings(path), safetensors.Tensors(path))


def load(source: Path | Source, layout: Layout, precision: Precision = Precision()) -> tuple[Config, Model]:
    """The config and the model, every parameter placed where the layout stores it.

    Names and shapes are checked before a weight is read. Raises Failure for a family, a setting or a tensor that is
    not known, missing or of another shape.
    """
    source = source if isinstance(source, Source) else opened(source)
    kind, config, tensors = source.family, source.config, source.tensors
    abstract = jax.eval_shape(lambda: build(config, jax.random.key(0), precision))
    leaves = flatten(abstract)
    held = correspondence(table(kind, config), abstract)
    theirs = _checked(kind, held, leaves, tensors, source.path)
    _check_zeros(kind, tensors, source.path)
    places = flatten(shardings(abstract, layout))
    sources = {leaf: (one, number) for one in held for number, leaf in enumerate(one.leaves)}

    def read(leaf: Leaf) -> Shaped[np.ndarray, "..."]:
        one, number = sources[leaf]
        return rearrange.from_theirs(one.entry, number, _shapes(one, leaves), tensors.read(theirs[one.name]))

    def fill(out: np.ndarray, index: tuple[slice, ...], name: str, at: tuple[int, ...] = ()) -> None:
        if (name, at) in sources:
            out[...] = read((name, at))[index]
            return
        places = range(*index[0].indices(leaves[name].shape[len(at)]))
        for row, place in zip(out, places, strict=True):
            fill(row, index[1:], name, (*at, place))

    def placed(name: str) -> jax.Array:
        leaf = leaves[name]

        def piece(index: tuple[slice, ...]) -> np.ndarray:
            lengths = [len(range(*part.indices(size))) for part, size in zip(index, leaf.shape, strict=True)]
            out = _aligned(tuple(lengths), leaf.dtype)
            fill(out, index, name)
            return out

        return jax.make_array_from_callback(leaf.shape, places[name], piece)

    # Largest first: what is held beside the model, one tensor of theirs, then comes to the least.
    made = {name: placed(name) for name in sorted(leaves, key=lambda name: -leaves[name].size)}
    return config, jax.tree.unflatten(jax.tree.structure(abstract), [made[name] for name in leaves])


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """An array that XLA:CPU takes as it is: one that does not begin on such a boundary it copies."""
    size = prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    return room[first : first + size].view(dtype).reshape(shape)


def save(
    config: Config,
    model: Model,
    directory: Path,
    *,
    length: int,
    model_type: str = "",
    tokens: Mapping[str, int] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> str:
    """Writes a model as its family does, in the parameters' format, and returns the family's `model_type`.

    Without a `model_type` the family is the first that has such a model. `length` is the longest row it is meant
    for; `tokens` are settings such as `eos_token_id`, `files` go with it. Raises UsageError for a model that no
    family has, for tokens that it cannot have, and for a directory that is there already.
    """
    kind, settings = published(config, length, model_type)
    for name, number in (tokens or {}).items():
        if settings.get(name) not in (None, number):
            raise UsageError(f"{name} is {number} in this tokenizer and {settings[name]} in this model")
    leaves = flatten(model)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for one in correspondence(table(kind, config), model):
            parts = [np.asarray(leaves[name][at]) for name, at in one.leaves]
            yield one.name, rearrange.to_theirs(one.entry, parts)

    config_json = (json.dumps(settings | dict(tokens or {}), indent=2) + "\n").encode()
    safetensors.write(directory, tensors(), {**(files or {}), "config.json": config_json})
    return settings["model_type"]


def correspondence(entries: Table, model: Any) -> list[Held]:
    """Every tensor of theirs that a model (or its shapes) has. Raises ValueError for a parameter without one."""
    leaves = flatten(model)
    found: list[Held] = []
    for entry in entries:
        stack = next((part.name.split(f".{LAYER}")[0] for part in entry.parts if LAYER in part.name), None)
        layers = [("", None)] if stack is None else operator.attrgetter(stack)(model).places()
        for number, (path, place) in enumerate(layers):
            names = [part.name.replace(LAYER, path) for part in entry.parts]
            if not any(name in leaves for name in names):
                continue
            at = () if place is None else (place,)
            theirs = entry.name.replace(LAYER, str(number))
            own = [(theirs, at)]
            if EXPERT in theirs:
                experts = range(leaves[names[0]].shape[len(at)])
                own = [(theirs.replace(EXPERT, str(expert)), (*at, expert)) for expert in experts]
            found += [Held(whole, entry, tuple((name, at) for name in names)) for whole, at in own]
    reached = {name for one in found for name, _ in one.leaves}
    if reached != leaves.keys():
        raise ValueError(f"the family's table and the model disagree on {sorted(reached ^ leaves.keys())}")
    return found


def _shapes(one: Held, leaves: dict[str, Any]) -> list[tuple[int, ...]]:
    return [leaves[name].shape[len(at) :] for name, at in one.leaves]


def _checked(
    kind: ModuleType, held: list[Held], leaves: dict[str, Any], tensors: Tensors, directory: Path
) -> dict[str, str]:
    """Their names for the tensors of a directory, as the file has them. Raises Failure that lists what differs."""
    wanted = {one.name: rearrange.their_shape(one.entry, _shapes(one, leaves)) for one in held}
    left_out = kind.OMITTED if not any(name.startswith(kind.OMITTED) for name in tensors.shapes) else ""
    whole = {_own_name(name, left_out, kind, wanted): name for name in tensors.shapes}
    derived = re.compile("|".join(kind.DERIVED))
    given = {name: tensors.shapes[own] for name, own in whole.items()}
    given = {name: shape for name, shape in given.items() if name in wanted or not derived.fullmatch(name)}
    if problems := differences(wanted, given):
        raise Failure(f"{directory} does not fit its config.json:\n{listed(problems, len(problems))}")
    return {name: whole[name] for name in wanted}


def _check_zeros(kind: ModuleType, tensors: Tensors, directory: Path) -> None:
    """Raises Failure where a tensor that nothing here holds is not zero."""
    for name in tensors.shapes:
        if name.removeprefix(kind.OMITTED) in getattr(kind, "ZERO", ()) and np.any(tensors.read(name)):
            raise Failure(f"{directory}: {name} is not zero, and nothing else is known here")


def _own_name(name: str, left_out: str, kind: ModuleType, wanted: Mapping[str, Any]) -> str:
    """The wanted name that a file's stands for; where there is none, the name in full."""
    names = [name, left_out + name]
    for old, new in getattr(kind, "ALIASES", ()):
        names += [one.replace(old, new) for one in names]
    return next((one for one in names if one in wanted), left_out + name)


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise Failure(f"{directory} has no config.json: a model is a directory with one, and safetensors")
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(f"{path} is damaged: it is no JSON object")
    return found
