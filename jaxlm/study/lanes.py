"""One program for several runs: shared out over devices, and on each of them side by side or in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "run"


@dataclass(frozen=True)
class Lanes:
    """Places for `count` runs on devices, as many on each; those left over repeat the last run, and nobody looks.

    `batched` runs of a device are one batch to every operation (`vmap`), else they follow each other (`lax.map`).
    """

    count: int
    devices: tuple[jax.Device, ...]
    batched: bool

    @staticmethod
    def of(count: int, devices: Sequence[jax.Device], batched: bool | None = None) -> Lanes:
        """For so many runs: no more devices than runs. Of itself a CPU is batched nothing.

        A small model's operations leave most of a GPU or TPU idle, and a batch of them fills it. A CPU core has
        no such room, and XLA:CPU multiplies batches of matrices more slowly than one after another.
        """
        chosen = tuple(devices[:count])
        return Lanes(count, chosen, chosen[0].platform != "cpu" if batched is None else batched)

    @property
    def mesh(self) -> Mesh:
        """The devices along the runs."""
        return Mesh(np.array(self.devices), (AXIS,))

    @property
    def runs(self) -> list[int]:
        """The run of each place."""
        places = -(-self.count // len(self.devices)) * len(self.devices)
        return [min(place, self.count - 1) for place in range(places)]

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """A tree of each run as one, each run where its place is."""
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        host = [jax.device_get(tree) for tree in trees]
        chosen = [host[run] for run in self.runs]
        return jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves), sharding), *chosen)

    def share(self, tree: PyTree) -> PyTree:
        """A tree that all runs have alike, on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def split(self, tree: PyTree) -> list[PyTree]:
        """The tree of each run, as numpy arrays."""
        host = jax.device_get(tree)
        return [jax.tree.map(lambda leaf, run=run: leaf[run], host) for run in range(self.count)]

    def map(self, f: Callable[[PyTree, PyTree, PyTree], Any], *, shared: bool) -> Callable[..., Any]:
        """f(numbers, state, batch) of each run, to be jitted; `shared` is one batch for all of them."""

        def of_a_device(numbers: PyTree, state: PyTree, batch: PyTree) -> Any:
            if self.batched:
                return jax.vmap(f, in_axes=(0, 0, None if shared else 0))(numbers, state, batch)
            if shared:
                return jax.lax.map(lambda given: f(*given, batch), (numbers, state))
            return jax.lax.map(lambda given: f(*given), (numbers, state, batch))

        if len(self.devices) == 1:
            return of_a_device
        run, whole = PartitionSpec(AXIS), PartitionSpec()
        given = (run, run, whole if shared else run)
        return jax.shard_map(of_a_device, mesh=self.mesh, in_specs=given, out_specs=run, check_vma=False)
