"""Global batches on their devices: each process reads only the rows its devices hold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Array

from jaxlm.data.rows import Rows
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.parallel.layout import Layout

FIELDS = ("ids", "segments", "positions", "targets", "weights", "documents", "rows")


def global_batch(rows: Rows, layout: Layout, step: int) -> Batch:
    """The batch of a step: a pure function of (rows, step), whatever the mesh and the processes."""
    order = layout.order(rows.length)
    read: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def piece(name: str, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(rows.size)
        if (start, stop) not in read:
            read[start, stop] = rows.batch(step, slice(start, stop))
        columns = (order[index[1]],) if len(index) > 1 else ()
        return read[start, stop][name][(slice(None), *columns)]

    def array(name: str) -> jax.Array:
        shape = (rows.size,) if name == "rows" else (rows.size, rows.length)
        sharding = layout.sharding(("row", "tokens")[: len(shape)], shape)
        shape += rows.more.get(name, ())
        return jax.make_array_from_callback(shape, sharding, lambda index: piece(name, index))

    return as_batch({name: array(name) for name in (*FIELDS, *rows.more)})


def as_batch(arrays: dict[str, Array]) -> Batch:
    """Columns as a batch; those that not every batch has are in `extra`."""
    inputs = Tokens(arrays["ids"], arrays["segments"], arrays["positions"])
    extra = {name: column for name, column in arrays.items() if name not in FIELDS}
    return Batch(inputs, arrays["targets"], arrays["weights"], arrays["rows"], arrays["documents"], extra=extra)


def abstract_batch(rows: Rows, layout: Layout) -> Batch:
    """Shapes, dtypes and shardings of a batch, for compiling before there is data."""
    batch = global_batch(rows, layout, 0)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), batch)


class Prefetched:
    """`batches(step)`, the one after it already being read by a thread."""

    def __init__(self, read: Callable[[int], Batch]):
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """The batch of a step; errors of the reading thread are raised here."""
        future = self._next.pop(step, None) or self._thread.submit(self._read, step)
        self._next = {step + 1: self._thread.submit(self._read, step + 1)}
        return future.result()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
