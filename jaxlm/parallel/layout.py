"""The one table from logical axes to mesh axes, and the only reader of mesh axis names.

Model code names what a dimension *is* ("heads", "mlp", "row"); a `Layout` says where it lives. The training step
runs one program on each device (`spmd`): there, batches are a device's own rows and positions, and parameters are
its own shards, gathered when they are used. Along the tensor axis devices join for what is wide: each computes some
of the heads, features or scores of all their tokens, and is left with the sums for its own (`enter`, `reduce`).
Outside of `spmd` the compiler places arrays as `constrain` says. On a single device every method here is the
identity.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout as MemoryLayout
from jax.experimental.layout import with_layout_constraint
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from jaxlm.config.errors import UsageError
from jaxlm.config.numbers import nearest_multiples

Axes = tuple[str, ...]

TABLE: tuple[tuple[str, Axes], ...] = (
    # parameters
    ("embed", ()),
    ("positions", ()),
    ("types", ()),
    ("labels", ()),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("head", ()),
    ("mlp", ("tensor",)),
    ("vocab", ("tensor",)),
    ("rank", ()),
    ("experts", ("expert",)),
    ("layers", ("pipeline",)),
    # activations
    ("row", ("replica", "data", "fsdp", "expert", "pipeline")),
    ("tokens", ("context", "tensor")),
    ("pos", ("context",)),
    ("features", ()),
)
"""Logical axis -> mesh axes of an array in use.

Positions of a row are `tokens` in batches and in the residual stream, and `pos` where devices have joined theirs.
"""

STORAGE = ("fsdp", "context")
"""Mesh axes that also shard parameters where they are stored: over them a parameter is gathered before use."""

STACKED = "layers"
"""The logical axis of the dimension over which a stack's parameters are stacked; no leaf names it itself."""

SLICES = "replica"
"""The mesh axis along which only a network joins devices."""

JOINED = ("tensor",)
"""Mesh axes along which devices join their tokens to compute some features of each: in `tokens`, not in `pos`."""

POSITIONS = ("tokens", "pos")
"""Logical axes of a row's positions, which devices hold in an order of their own."""

GATHERED = "gathered"
"""The name of gathered parameters for `jax.checkpoint`: no backward pass should find them kept."""


@dataclass(frozen=True)
class Layout:
    """Where arrays live: a mesh and the table. Static and hashable."""

    mesh: Mesh
    table: tuple[tuple[str, Axes], ...] = TABLE
    storage: Axes = STORAGE
    stored: Axes = ("embed",)
    """Logical axes that can be sharded over `storage`, beside what shards them in use: of a matrix, the first.

    The first is the best: XLA:TPU reduce-scatters gradients along major dimensions, and all-reduces them along
    narrow minor ones. See `layers.axes.fitted`.
    """

    # --- where arrays are ----------------------------------------------------------------------------------

    def spec(self, axes: Axes, shape: tuple[int, ...]) -> PartitionSpec:
        """Mesh axes of each dimension in use; leading dimensions that `axes` does not name are not sharded.

        Raises UsageError for an unknown axis, more axes than dimensions, a mesh axis used twice, or a dimension
        that does not divide.
        """
        return self._checked(self._in_use(axes), axes, shape)

    def stored_spec(self, axes: Axes, shape: tuple[int, ...]) -> PartitionSpec:
        """The same for a parameter where it is stored; see `spec` for errors.

        A dimension in front that `axes` does not name is that over which layers are stacked.
        """
        stacked = (STACKED,) if len(shape) == len(axes) + 1 else ()
        split = self._in_use(stacked) + self._in_storage(axes)
        return self._checked(split, stacked + axes, shape)

    def _in_use(self, axes: Axes) -> list[Axes]:
        table = dict(self.table)
        unknown = [axis for axis in axes if axis not in table]
        if unknown:
            raise UsageError(f"logical axis {unknown[0]!r} is not in the layout's table ({', '.join(table)})")
        return [tuple(a for a in table[axis] if a in self.mesh.shape) for axis in axes]

    def _in_storage(self, axes: Axes) -> list[Axes]:
        split = self._in_use(axes)
        # Vectors stay whole: sharding them saves nothing and costs a gather.
        first = next((i for i, axis in enumerate(axes) if axis in self.stored), None)
        if len(axes) > 1 and first is not None:
            split[first] += tuple(a for a in self.storage if a in self.mesh.shape)
        return split

    def _checked(self, split: list[Axes], axes: Axes, shape: tuple[int, ...]) -> PartitionSpec:
        if len(axes) > len(shape):
            raise UsageError(f"{axes} names more axes than shape {shape} has dimensions")
        padded: list[Axes] = [()] * (len(shape) - len(axes))
        padded += split
        twice = [a for a, count in Counter(a for dim in padded for a in dim).items() if count > 1]
        if twice:
            raise UsageError(f"mesh axis {twice[0]!r} would shard two dimensions of {axes} with shape {shape}")
        for dim, mesh_axes in zip(shape, padded, strict=True):
            self._check_divides(dim, mesh_axes, axes, shape)
        return PartitionSpec(*(dim or None for dim in padded))

    def _check_divides(self, dim: int, mesh_axes: Axes, axes: Axes, shape: tuple[int, ...]) -> None:
        shards = self.size(mesh_axes)
        if dim % shards:
            sharded = " x ".join(axis for axis in mesh_axes if self.mesh.shape[axis] > 1)
            raise UsageError(
                f"dimension {dim} of {axes} with shape {shape} does not divide into {shards} shards "
                f"({sharded}): use {nearest_multiples(dim, shards)}, or fewer shards"
            )

    def size(self, mesh_axes: Axes) -> int:
        """Devices along some mesh axes; an axis that the mesh lacks has one."""
        return prod(self.mesh.shape.get(axis, 1) for axis in mesh_axes)

    def shards(self, axis: str) -> int:
        """Number of pieces a logical axis is cut into."""
        return self.size(dict(self.table)[axis])

    def order(self, length: int) -> np.ndarray:
        """The positions of a row in the order in which devices hold them.

        Each shard holds an early and an equally late part, so that causal attention is even work (zigzag, as in
        Llama 3, arXiv:2407.21783, section 3.3.2). Raises UsageError when the parts do not divide.
        """
        shards = self.shards("pos")
        pieces = lcm(2 * shards if shards > 1 else 1, self.shards("tokens"))
        if length % pieces:
            axes = " and ".join(f"where.mesh.{axis}={self.size((axis,))}" for axis in dict(self.table)["tokens"])
            raise UsageError(
                f"train.length={length} does not divide into the {pieces} pieces that {axes} ask for: use "
                f"{nearest_multiples(length, pieces)}, or fewer shards"
            )
        if shards == 1:
            return np.arange(length)
        parts = np.arange(length).reshape(2 * shards, -1)
        return np.concatenate([np.concatenate([parts[i], parts[-1 - i]]) for i in range(shards)])

    def sharding(self, axes: Axes, shape: tuple[int, ...]) -> NamedSharding:
        """Where an array in use lives; see `spec` for errors."""
        return NamedSharding(self.mesh, self.spec(axes, shape))

    def stored_sharding(self, axes: Axes, shape: tuple[int, ...]) -> NamedSharding:
        """Where a parameter is stored; see `spec` for errors."""
        return NamedSharding(self.mesh, self.stored_spec(axes, shape))

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    def replicated(self) -> NamedSharding:
        """Everywhere whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    # --- what models call ----------------------------------------------------------------------------------

    def constrain(self, x: Array, axes: Axes) -> Array:
        """Pin an activation to its layout; within `spmd` it is where it is."""
        if self.mesh.size == 1 or self._manual():
            return x
        return jax.lax.with_sharding_constraint(x, self.sharding(axes, x.shape))

    def gather(self, x: Array, axes: Axes) -> Array:
        """A parameter as it is used: all-gathered over the storage axes; the gradient is reduce-scattered back."""
        if not self.gathers:
            return x
        if not self._manual():
            return checkpoint_name(_gather(x, self, axes), GATHERED)
        for dim, mesh_axes in enumerate(self._in_storage(axes), start=x.ndim - len(axes)):
            held = tuple(axis for axis in mesh_axes if axis in self.storage and self.size((axis,)) > 1)
            if held:
                x = jax.lax.all_gather(x, held, axis=dim, tiled=True)
        return checkpoint_name(x, GATHERED)

    @property
    def gathers(self) -> bool:
        """Whether parameters are stored in shards."""
        return self.size(self.storage) > 1

    def gathered(self) -> Layout:
        """The layout for parameters that have been gathered: `gather` is the identity."""
        return dataclasses.replace(self, storage=())

    def barrier(self, x: PyTree) -> PyTree:
        """x, computed before what uses it, and its gradient likewise.

        XLA:TPU fuses a norm or an activation into every product that takes it, and computes it again for each.
        """
        return x if self.mesh.size == 1 else jax.lax.optimization_barrier(x)

    def row_major(self, x: Array) -> Array:
        """x with its last dimension contiguous in a TPU's memory, and its gradient likewise.

        XLA:TPU lays out what one product of the backward pass takes for that product, and copies what was saved
        for it; elsewhere the identity.
        """
        if self.platform != "tpu":
            return x
        return with_layout_constraint(x, MemoryLayout(tuple(range(x.ndim))))

    # --- one program on each device ------------------------------------------------------------------------

    def spmd(self, f: Callable, in_specs: PyTree, out_specs: PyTree) -> Callable:
        """`f` on each device's own shards (`jax.shard_map`).

        Specs are pytrees of PartitionSpec, as `spec` and `stored_spec` give them. What comes out with a spec that
        does not name an axis must be the same along it: see `total` and `total_gradient`. On one device `f` itself.
        """
        if self.mesh.size == 1:
            return f
        # Without types of variation every value is a device's own, and psum transposes to psum: the gradient of the
        # sum over devices of what they compute.
        return jax.shard_map(f, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def manual(self, f: Callable, in_axes: PyTree, out_axes: PyTree) -> Callable:
        """`f` on each device's own shards of arrays in use, dimensions given by logical names.

        `in_axes` and `out_axes` are tuples of logical axes, one for each argument and result array. Within `spmd`,
        where arrays are a device's own already, and on one device, `f` itself.
        """
        if self.mesh.size == 1 or self._manual():
            return f

        def spec(axes: Axes) -> PartitionSpec:
            return PartitionSpec(*(dim or None for dim in self._in_use(axes)))

        specs = functools.partial(jax.tree.map, spec, is_leaf=_is_axes)
        return jax.shard_map(f, mesh=self.mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False)

    def enter(self, x: PyTree, dim: int = 1) -> PyTree:
        """Within `spmd`: a device's own tokens, joined with those of the devices that have other features of them.

        Along dimension `dim` of each array that has it. Gradients come back as their sum over those devices, each
        its own tokens' (Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2: g).
        """
        axes = self._joined("tokens")
        if not axes:
            return x

        def joined(x: Array, dim: int) -> Array:
            return jax.lax.all_gather(x, axes, axis=dim, tiled=True)

        return jax.tree.map(lambda x: _in_front(joined, x, dim) if x.ndim > dim else x, x)

    def reduce(self, x: Array, axes: Axes, dim: int = 1) -> Array:
        """Within `spmd`: where joined devices added up over their own parts of these logical axes, the sum.

        Of its dimension `dim` the device's own tokens; the way back from `enter` (the same paper: g bar).
        """
        joined = tuple(a for axis in axes for a in self._joined(axis))
        if not joined:
            return x
        return _in_front(lambda x, dim: jax.lax.psum_scatter(x, joined, scatter_dimension=dim, tiled=True), x, dim)

    def sum(self, x: PyTree, axis: str) -> PyTree:
        """Within `manual` or `spmd`: the sum over the devices along a logical axis."""
        mesh_axes = self._held(axis)
        return jax.lax.psum(x, mesh_axes) if mesh_axes else x

    def sum_scatter(self, x: Array, axis: str) -> Array:
        """Within `manual` or `spmd`: of the sum along a logical axis, this device's piece of dimension 0."""
        mesh_axes = self._held(axis)
        return jax.lax.psum_scatter(x, mesh_axes, scatter_dimension=0, tiled=True) if mesh_axes else x

    def total(self, x: PyTree) -> PyTree:
        """Within `spmd`: the sum over all devices' own values."""
        mesh_axes = self._manual()
        return jax.lax.psum(x, mesh_axes) if mesh_axes else x

    def total_gradient(self, x: Array, spec: PartitionSpec, dtype: str) -> Array:
        """Within `spmd`: a gradient summed over the devices that hold copies of the parameter, which has `spec`.

        What has been reduce-scattered in `dtype` is summed in it too; the rest is small, and summed as it is.
        """
        sharded = {axis for dim in spec for axis in _names(dim) if self.mesh.shape[axis] > 1}
        copies = tuple(axis for axis in self._manual() if self.mesh.shape[axis] > 1 and axis not in sharded)
        if not copies:
            return x
        scattered = not sharded.isdisjoint(self.storage)
        total = x.astype(dtype) if scattered else x
        # Within slices first: between them a network has to carry each sum once only.
        for some in (
            tuple(axis for axis in copies if axis != SLICES),
            tuple(axis for axis in copies if axis == SLICES),
        ):
            total = jax.lax.psum(total, some) if some else total
        return total.astype(x.dtype)

    def parts(self, axis: str | None = None) -> int:
        """Devices, or those along a logical axis: 1 outside `spmd`."""
        return self.size(self._manual() if axis is None else self._held(axis))

    def whole(self) -> bool:
        """Whether nothing of this program is split by the compiler, so that it may hold kernels of its own."""
        manual = self._manual()
        return self.size(tuple(axis for axis in self.mesh.axis_names if axis not in manual)) == 1

    def own(self, x: Array, axis: str, dim: int) -> Array:
        """This device's part of a dimension that is whole, positions in the row's order.

        Outside `spmd` all of it, positions in the devices' order.
        """
        if self.shards(axis) == 1:
            return x
        order = self.order(x.shape[dim]) if axis in POSITIONS else np.arange(x.shape[dim])
        mine = jax.numpy.asarray(order.reshape(self.parts(axis), -1))[self.index(axis)]
        return jax.numpy.take(x, mine, axis=dim)

    def index(self, axis: str) -> Array | int:
        """Within `manual` or `spmd`: this device's place along a logical axis."""
        mesh_axes = self._held(axis)
        return jax.lax.axis_index(mesh_axes) if mesh_axes else 0

    def pass_on(self, x: PyTree, axis: str) -> PyTree:
        """Within `manual` or `spmd`: what the device before this one along a logical axis holds, in a ring."""
        n = self.shards(axis)
        return self.send(x, axis, [(i, (i + 1) % n) for i in range(n)])

    def send(self, x: PyTree, axis: str, pairs: list[tuple[int, int]]) -> PyTree:
        """Within `manual` or `spmd`: what is sent here along a logical axis, by (sender, receiver)."""
        mesh_axes = self._held(axis)
        return jax.lax.ppermute(x, mesh_axes, pairs) if mesh_axes else x

    def collect(self, x: Array, axis: str, dim: int) -> Array:
        """Within `manual` or `spmd`: dimension `dim` whole, from all devices along a logical axis."""
        mesh_axes = self._held(axis)
        return jax.lax.all_gather(x, mesh_axes, axis=dim, tiled=True) if mesh_axes else x

    def exchange(self, x: Array, axis: str, *, split: int, join: int) -> Array:
        """Within `manual` or `spmd`: dimension `split` dealt out along a logical axis, `join` collected."""
        mesh_axes = self._held(axis)
        return jax.lax.all_to_all(x, mesh_axes, split, join, tiled=True) if mesh_axes else x

    def _manual(self) -> Axes:
        """Its mesh axes along which the present program sees only a device's own shards."""
        return tuple(axis for axis in jax.sharding.get_abstract_mesh().manual_axes if axis in self.mesh.shape)

    def _joined(self, axis: str) -> Axes:
        return tuple(a for a in self._held(axis) if a in JOINED)

    def _held(self, axis: str) -> Axes:
        """The manual mesh axes of more than one device along a logical axis."""
        manual = self._manual()
        return tuple(a for a in dict(self.table)[axis] if a in manual and self.size((a,)) > 1)


def is_gather(primitive: Any, parameters: dict[str, Any]) -> bool:
    """Whether an operation gathers a parameter, for policies of `jax.checkpoint`."""
    return primitive.name == "all_gather" and set(parameters["axis_name"]) <= set(STORAGE)


def _in_front(f: Callable[[Array, int], Array], x: Array, dim: int) -> Array:
    """f(x, dim), a dimension behind a single row brought to the front.

    XLA:TPU would sum the whole of it on all devices instead of scattering the sum.
    """
    if dim == 0 or prod(x.shape[:dim]) != 1:
        return f(x, dim)
    y = f(x.reshape(x.shape[dim:]), 0)
    return y.reshape(*x.shape[:dim], *y.shape)


def _names(dim: str | Axes | None) -> Axes:
    """The mesh axes of one dimension of a PartitionSpec."""
    return (dim,) if isinstance(dim, str) else dim or ()


def _is_axes(x: object) -> bool:
    return isinstance(x, tuple) and all(isinstance(item, str) for item in x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, layout: Layout, axes: Axes) -> Array:
    return jax.lax.with_sharding_constraint(x, layout.sharding(axes, x.shape))


def _gather_forward(x: Array, layout: Layout, axes: Axes) -> tuple[Array, None]:
    return _gather(x, layout, axes), None


def _gather_backward(layout: Layout, axes: Axes, _: None, cotangent: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(cotangent, layout.stored_sharding(axes, cotangent.shape)),)


_gather.defvjp(_gather_forward, _gather_backward)


def single_device() -> Layout:
    """The layout of one device, in which every method is the identity."""
    from jaxlm.config import Mesh as MeshConfig
    from jaxlm.parallel.mesh import make_mesh

    return Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
