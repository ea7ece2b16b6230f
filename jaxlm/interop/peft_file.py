"""The tensors of an adapter_model.safetensors beside the modules of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.adapters.vera import Given, VeRA
from jaxlm.config.errors import Failure
from jaxlm.config.suggest import nearest
from jaxlm.interop import rearrange, safetensors
from jaxlm.interop.exchange import Held
from jaxlm.interop.modules import Array, Module
from jaxlm.interop.peft_settings import CONFIG, PREFIX, SHARED, Settings
from jaxlm.layers.names import differences, flatten, listed
from jaxlm.layers.weights import map_weights

Tree = TypeVar("Tree")
BASE = ".base_layer."
"""In the name of a tensor of the model itself, which PEFT keeps of an adapted head."""
Leaves = dict[str, Array]

NEEDED = {
    "LORA": ("lora_A.weight", "lora_B.weight"),
    "DORA": ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"),
    "VERA": ("vera_lambda_b", "vera_lambda_d"),
    "IA3": ("ia3_l",),
}
"""What each kind has beside a module."""


@dataclass(frozen=True)
class File:
    """An adapter's tensors beside the modules of a model."""

    directory: Path
    tensors: safetensors.Tensors
    settings: Settings
    modules: Mapping[str, Module]
    held: Mapping[str, Held]
    omitted: str
    """What names lack where the adapter is of a model without a head."""

    def modules_of(self) -> dict[str, dict[str, str]]:
        """The modules that have an adapter, each with the tensors of its kind. Raises Failure: see `read`."""
        found: dict[str, dict[str, str]] = {}
        for name in sorted(self.tensors.shapes):
            module, suffix = self._split(name)
            if suffix is not None:
                found.setdefault(module, {})[suffix] = name
        unknown = [module for module in found if module not in self.modules]
        if unknown:
            near = "".join(f"\n  {one}" for one in nearest(unknown[0], list(self.modules)))
            raise Failure(f"{self.directory}: this model has no module {unknown[0]}; nearest:{near}")
        needed = NEEDED[self.settings.kind]
        wanted = {name for name in self.modules if self.settings.targets(name)} | found.keys()
        if not wanted:
            raise Failure(f"{self.directory}: target_modules are none that this model has: {self.settings.named}")
        names = {f"{module}.{suffix}": "a tensor" for module in sorted(wanted) for suffix in needed}
        given = {f"{module}.{suffix}": "a tensor" for module in found for suffix in found[module]}
        if problems := differences(names, given):
            raise Failure(f"{self.directory} does not fit its {CONFIG} and this model:\n{listed(problems)}")
        return found

    def _split(self, name: str) -> tuple[str, str | None]:
        """(module, what of it); of other tensors that are known (name, None). Raises Failure for the rest."""
        whole = name.removeprefix(PREFIX)
        for suffix in NEEDED[self.settings.kind]:
            if whole.endswith(f".{suffix}") and name.startswith(PREFIX):
                module = whole.removesuffix(f".{suffix}")
                return (module if module in self.modules else self._full(module, self.modules)), suffix
        if name in SHARED or self._full(whole.replace(BASE, "."), self.held) in self.held:
            return name, None
        raise Failure(f"{self.directory}: {name} is no tensor of a {self.settings.kind} adapter of this model")

    def _full(self, name: str, known: Mapping[str, Any]) -> str:
        return next((one for one in (name, self.omitted + name) if one in known), name)

    def matrix(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """A tensor in float32. Raises Failure where it is not of this shape; None is any length."""
        found = self.tensors.shapes[name]
        if len(found) != len(shape) or any(want not in (None, one) for one, want in zip(found, shape, strict=True)):
            wanted = " x ".join("any" if one is None else str(one) for one in shape)
            raise Failure(
                f"{self.directory}: {name} is {' x '.join(map(str, found))}, and this model needs {wanted}: it is "
                "an adapter of another model"
            )
        return np.asarray(self.tensors.read(name)).astype(np.float32)

    def whole_leaves(self, model: Any) -> Leaves:
        """Parameters that were trained themselves, such as a classifier. Raises Failure for a layer's."""
        found, leaves = {}, flatten(model)
        for name in sorted(self.tensors.shapes):
            one = self.held.get(self._full(name.removeprefix(PREFIX).replace(BASE, "."), self.held))
            if one is None:
                continue
            (leaf, at), *more = one.leaves
            if at or more or leaf not in leaves:
                raise Failure(f"{self.directory}: {name} is a layer's: of those only adapters are read")
            own = leaves[leaf].shape
            tensor = self.matrix(name, rearrange.their_shape(one.entry, [own]))
            mine = rearrange.from_theirs(one.entry, 0, [own], tensor)
            if BASE not in name:
                found[leaf] = mine
            elif not np.array_equal(mine, np.asarray(leaves[leaf]).astype(np.float32)):
                raise Failure(f"{self.directory}: {name} is not this model's: it is an adapter of another one")
        return found

    def with_shared(self, model: Tree, found: Mapping[str, Any]) -> Tree:
        """VeRA's matrices as the file has them: torch's random numbers follow from no seed here."""
        rank = self.settings.rank
        if not all(name in self.tensors.shapes for name in SHARED):
            raise Failure(
                f"{self.directory} lacks {SHARED[0]} and {SHARED[1]}, which only torch can draw again: save it "
                "with save_projection=True"
            )
        a, b = (self.matrix(name, shape) for name, shape in zip(SHARED, ((rank, None), (None, rank)), strict=True))
        given: dict[str, Given] = {}
        for name in found:
            module = self.modules[name]
            inputs, outputs = module.features(0), module.features(1)
            if inputs > a.shape[1] or outputs > b.shape[0]:
                raise Failure(f"{self.directory}: vera_A and vera_B are too small for {name}")
            parts = zip(module.ours(0, a[:, :inputs], rank), module.ours(1, b[:outputs], rank), strict=True)
            for (weight, _), (one, two) in zip(module.weights, parts, strict=True):
                given[weight] = Given(jnp.asarray(one.reshape(-1, rank)), jnp.asarray(two.reshape(rank, -1)))

        def one(name: str, weight: Any) -> Any:
            if not isinstance(weight, VeRA):
                return weight
            stacked = weight.inner.shape[:-1]
            shared = jax.tree.map(lambda x: jnp.broadcast_to(x, (*stacked, *x.shape)), given[name])
            return weight.replace(shared=shared)

        return map_weights(one, model)
