"""The one table from logical axes to mesh axes, and the only reader of mesh axis names.

Model code names what a dimension *is* ("heads", "mlp", "row"); a `Layout` says where it lives. On a single device
every method here is the identity.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from jaxlm.config.errors import UsageError

Axes = tuple[str, ...]

TABLE: tuple[tuple[str, Axes], ...] = (
    # parameters
    ("embed", ("fsdp",)),
    ("positions", ()),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("head", ()),
    ("mlp", ("tensor",)),
    ("vocab", ("tensor",)),
    ("experts", ()),
    ("rank", ()),
    # activations
    ("row", ("data", "fsdp")),
    ("pos", ()),
    ("features", ()),
)
"""Logical axis -> mesh axes. Parameters are stored as it says and used with `STORAGE` axes gathered."""

STORAGE = ("fsdp",)
"""Mesh axes that only store parameters: before use a parameter is gathered over them."""


@dataclass(frozen=True)
class Layout:
    """Where arrays live: a mesh and the table. Static and hashable."""

    mesh: Mesh
    table: tuple[tuple[str, Axes], ...] = TABLE

    def spec(self, axes: Axes, shape: tuple[int, ...], omit: Axes = ()) -> PartitionSpec:
        """Mesh axes of each dimension; leading dimensions that `axes` does not name are not sharded.

        Raises UsageError for an unknown axis, more axes than dimensions, a mesh axis used twice, or a dimension
        that does not divide.
        """
        table = dict(self.table)
        unknown = [axis for axis in axes if axis not in table]
        if unknown:
            raise UsageError(f"logical axis {unknown[0]!r} is not in the layout's table ({', '.join(table)})")
        if len(axes) > len(shape):
            raise UsageError(f"{axes} names more axes than shape {shape} has dimensions")
        padded: list[Axes] = [()] * (len(shape) - len(axes))
        padded += [tuple(a for a in table[axis] if a not in omit) for axis in axes]
        twice = [a for a, count in Counter(a for dim in padded for a in dim).items() if count > 1]
        if twice:
            raise UsageError(f"mesh axis {twice[0]!r} would shard two dimensions of {axes} with shape {shape}")
        for dim, mesh_axes in zip(shape, padded, strict=True):
            self._check_divides(dim, mesh_axes, axes, shape)
        return PartitionSpec(*(dim or None for dim in padded))

    def _check_divides(self, dim: int, mesh_axes: Axes, axes: Axes, shape: tuple[int, ...]) -> None:
        shards = self.size(mesh_axes)
        if dim % shards:
            below, above = dim // shards * shards, -(-dim // shards) * shards
            nearest = " or ".join(str(n) for n in (below, above) if n)
            raise UsageError(
                f"dimension {dim} of {axes} with shape {shape} does not divide into {shards} shards "
                f"({' x '.join(mesh_axes)}): use {nearest}, or fewer shards"
            )

    def size(self, mesh_axes: Axes) -> int:
        """Devices along some mesh axes."""
        size = 1
        for axis in mesh_axes:
            size *= self.mesh.shape[axis]
        return size

    def shards(self, axis: str) -> int:
        """Number of pieces a logical axis is cut into."""
        return self.size(dict(self.table)[axis])

    def sharding(self, axes: Axes, shape: tuple[int, ...]) -> NamedSharding:
        """Where an array with these logical axes is stored; see `spec` for errors."""
        return NamedSharding(self.mesh, self.spec(axes, shape))

    def replicated(self) -> NamedSharding:
        """Everywhere whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def constrain(self, x: Array, axes: Axes) -> Array:
        """Pin an activation to its layout."""
        if self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, self.sharding(axes, x.shape))

    def gather(self, x: Array, axes: Axes) -> Array:
        """A parameter as it is used: all-gathered over the storage axes; the gradient is reduce-scattered back."""
        if self.size(STORAGE) == 1:
            return x
        return _gather(x, self, axes)

    def manual(self, f: Callable, in_axes: PyTree, out_axes: PyTree) -> Callable:
        """`f` on each device's own shards (`jax.shard_map`), dimensions given by logical names.

        `in_axes` and `out_axes` are tuples of logical axes, one for each argument and result array. Inside, `sum`
        reduces over the devices that share a logical axis. On one device `f` is called as it is.
        """
        if self.mesh.size == 1:
            return f
        specs = functools.partial(jax.tree.map, self._manual_spec, is_leaf=_is_axes)
        return jax.shard_map(f, mesh=self.mesh, in_specs=specs(in_axes), out_specs=specs(out_axes))

    def _manual_spec(self, axes: Axes) -> PartitionSpec:
        table = dict(self.table)
        return PartitionSpec(*(table[axis] or None for axis in axes))

    def sum(self, x: PyTree, axis: str) -> PyTree:
        """Inside `manual`: the sum over the devices along a logical axis."""
        mesh_axes = self._held(axis)
        return jax.lax.psum(x, mesh_axes) if mesh_axes else x

    def sum_scatter(self, x: Array, axis: str) -> Array:
        """Inside `manual`: of the sum over the devices along a logical axis, this device's piece of dimension 0."""
        mesh_axes = self._held(axis)
        return jax.lax.psum_scatter(x, mesh_axes, scatter_dimension=0, tiled=True) if mesh_axes else x

    def all_gather(self, x: Array, axis: str) -> Array:
        """Inside `manual`: what the devices along a logical axis hold, one after the other in dimension 0."""
        mesh_axes = self._held(axis)
        return jax.lax.all_gather(x, mesh_axes, axis=0, tiled=True) if mesh_axes else x

    def exchange(self, x: Array, axis: str, *, split: int, join: int) -> Array:
        """Inside `manual`: dimension `split` dealt out along a logical axis, `join` collected."""
        mesh_axes = self._held(axis)
        return jax.lax.all_to_all(x, mesh_axes, split, join, tiled=True) if mesh_axes else x

    def index(self, axis: str) -> Array | int:
        """Inside `manual`: this device's place along a logical axis."""
        mesh_axes = self._held(axis)
        return jax.lax.axis_index(mesh_axes) if mesh_axes else 0

    def whole(self) -> bool:
        """Whether nothing of this program is split by the compiler, so that it may hold kernels of its own."""
        manual = jax.sharding.get_abstract_mesh().manual_axes
        return self.size(tuple(axis for axis in self.mesh.axis_names if axis not in manual)) == 1

    def cuts(self, axis: str) -> int:
        """Pieces of a logical axis that this program sees one of: 1 outside `manual`."""
        return self.size(self._held(axis))

    def _held(self, axis: str) -> Axes:
        """The manual mesh axes of more than one device along a logical axis."""
        manual = jax.sharding.get_abstract_mesh().manual_axes
        return tuple(a for a in dict(self.table)[axis] if a in manual and self.size((a,)) > 1)


def _is_axes(x: object) -> bool:
    return isinstance(x, tuple) and all(isinstance(item, str) for item in x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, layout: Layout, axes: Axes) -> Array:
    spec = layout.spec(axes, x.shape, omit=STORAGE)
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, spec))


def _gather_forward(x: Array, layout: Layout, axes: Axes) -> tuple[Array, None]:
    return _gather(x, layout, axes), None


def _gather_backward(layout: Layout, axes: Axes, _: None, cotangent: Array) -> tuple[Array]:
    return (layout.constrain(cotangent, axes),)


_gather.defvjp(_gather_forward, _gather_backward)


def single_device() -> Layout:
    """The layout of one device, in which every method is the identity."""
    from jaxlm.config import Mesh as MeshConfig
    from jaxlm.parallel.mesh import make_mesh

    return Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
