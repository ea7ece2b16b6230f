"""A family's linear modules: which of our weights each holds, and how vectors and low-rank matrices beside it lie.

Their matrix is [outputs, inputs], or [inputs, outputs] in a Conv1D (GPT-2); several of ours may lie side by side in
its outputs (query, key and value). What is for inputs is the same for all of those, what is for outputs is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import jax
import numpy as np
from jaxtyping import Shaped

from jaxlm.config.model import Model as Config
from jaxlm.families.known import table
from jaxlm.families.table import Entry, Part, groups
from jaxlm.interop import rearrange
from jaxlm.interop.exchange import Held, Leaf, correspondence
from jaxlm.layers.weights import weights_of
from jaxlm.models import build

KERNEL, WEIGHT = ".kernel", ".weight"
TABLES = ("vocab", "positions", "types")
"""First axes of weights whose rows are looked up: no linear modules."""
Array = Shaped[np.ndarray, "..."]


@dataclass(frozen=True)
class Module:
    """One linear module of theirs."""

    name: str
    entry: Entry
    weights: tuple[Leaf, ...]
    """Ours by name, and their place in a stack."""
    inputs: int
    """Dimensions of our matrices that are inputs."""
    shapes: tuple[tuple[int, ...], ...]
    """Of our matrices, each layer by itself."""

    @property
    def transposed(self) -> bool:
        """Whether their matrix has its inputs first (`fan_in_fan_out`)."""
        inward = {letter for names in self._ours(0)[0] for letter in names}
        return not inward.isdisjoint(groups(self.entry.axes)[0])

    def _ours(self, number: int) -> tuple[list[list[str]], list[list[str]]]:
        own = groups(self.entry.parts[number].axes)
        return own[: self.inputs], own[self.inputs :]

    def _theirs(self) -> tuple[list[str], list[str]]:
        first, second = groups(self.entry.axes)
        return (first, second) if self.transposed else (second, first)

    def _entry(self, side: int, rank: int) -> Entry:
        """Of what is for inputs (0) or outputs (1); a rank comes first there and last here, or reversed."""
        theirs = _text([self._theirs()[side]])
        ours = [_text(self._ours(number)[side]) for number in range(len(self.weights) if side else 1)]
        if rank:
            theirs = f"{theirs} z" if side else f"z {theirs}"
            ours = [f"z {one}" if side else f"{one} z" for one in ours]
        return Entry(self.name, theirs, tuple(Part(self.name, one) for one in ours))

    def sizes(self, side: int) -> list[tuple[int, ...]]:
        """The dimensions of our inputs (0) or outputs (1), of each part."""
        cut = self.inputs
        return [shape[cut:] if side else shape[:cut] for shape in self.shapes]

    def ours(self, side: int, tensor: Array, rank: int = 0) -> list[Array]:
        """Of each part what is for inputs, [inputs] or [inputs, rank], or outputs, [outputs] or [rank, outputs].

        `tensor` is theirs: [features], [rank, inputs] or [outputs, rank].
        """
        entry, sizes = self._entry(side, rank), self.sizes(side)
        extra = (rank,) if rank else ()
        shapes = [(*extra, *size) if side else (*size, *extra) for size in sizes]
        if not side:
            return [rearrange.from_theirs(entry, 0, shapes[:1], tensor)] * len(sizes)
        return [rearrange.from_theirs(entry, number, shapes, tensor) for number in range(len(sizes))]

    def theirs(self, side: int, arrays: list[Array], rank: int = 0) -> Array:
        """The reverse of `ours`; for inputs of one array."""
        return rearrange.to_theirs(self._entry(side, rank), arrays)

    def features(self, side: int) -> int:
        """Their number of inputs (0) or outputs (1)."""
        return rearrange.their_shape(self._entry(side, 0), self.sizes(side)[: None if side else 1])[0]


def _text(names: list[list[str]]) -> str:
    return " ".join(f"({' '.join(one)})" if len(one) > 1 else one[0] for one in names)


def linear(kind: ModuleType, config: Config) -> tuple[dict[str, Module], dict[str, Held]]:
    """(linear modules by name, every tensor by name) of a family's model."""
    abstract = jax.eval_shape(lambda: build(config, jax.random.key(0)))
    held, weights = correspondence(table(kind, config), abstract), weights_of(abstract)
    modules = {}
    for one in held:
        names = [name.removesuffix(KERNEL) for name, _ in one.leaves]
        if not (one.name.endswith(WEIGHT) and all(name in weights for name in names)):
            continue
        first = weights[names[0]]
        if len(groups(one.entry.axes)) != 2 or first.axes[0] in TABLES or not hasattr(first, "kernel"):
            continue
        if any(name + KERNEL != leaf for name, (leaf, _) in zip(names, one.leaves, strict=True)):
            continue
        own = tuple((name, at) for name, (_, at) in zip(names, one.leaves, strict=True))
        shapes = tuple(weights[name].kernel.shape[len(at) :] for name, at in own)
        whole = one.name.removesuffix(WEIGHT)
        modules[whole] = Module(whole, one.entry, own, first.inputs, shapes)
    return modules, {one.name: one for one in held}
