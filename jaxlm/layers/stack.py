"""A stack of layers: `prefix`, then `period` repeated, then `suffix`.

Parameters of the period are stacked over its repeats: one layer is compiled and scanned over. What is `shared` in
place of a period has the same parameters in every repeat. Scanned, unrolled and pipelined stacks compute the same.
In a pipeline stages share the repeats, and each runs prefix and suffix for rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.recurrent import Recurrent
from jaxlm.layers import remat
from jaxlm.layers.cache import LayerCache
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.initial import Initial
from jaxlm.layers.random import at
from jaxlm.layers.taps import Report
from jaxlm.parallel import pipeline

Hidden = PyTree
"""The residual stream: [row, pos, embed], alone or with what else a layer hands to the next."""


@runtime_checkable
class Layer(Protocol):
    """One layer: the residual stream in and out."""

    def __call__(
        self, x: Hidden, context: Any, call: Call, cache: LayerCache | None, key: RowKeys | None
    ) -> tuple[Hidden, LayerCache | None, Report]:
        """Returns the stream, the new cache, taps and terms."""
        ...

    def empty_cache(self, rows: int, length: int, dtype: str) -> LayerCache:
        """No tokens yet."""
        ...


@runtime_checkable
class Context(Protocol):
    """What every layer is given."""

    def by_row(self) -> PyTree:
        """The arrays that begin with the rows."""
        ...

    def of_rows(self, rows: PyTree) -> Context:
        """The context of some rows, given what `by_row` returns for them."""
        ...


@struct.dataclass
class Stack:
    """Layers in order; those of `period` have a leading dimension `repeats` on every parameter."""

    prefix: tuple[Layer, ...]
    period: tuple[Layer, ...]
    suffix: tuple[Layer, ...]
    repeats: int = struct.field(pytree_node=False)
    shared: tuple[Layer, ...] = ()

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.prefix) + self.repeats * len(self.period + self.shared) + len(self.suffix)

    @property
    def crosses(self) -> bool:
        """Whether any layer attends to a memory."""
        return any(
            getattr(layer, "cross", None) is not None
            for layer in self.prefix + self.period + self.shared + self.suffix
        )

    def layers(self) -> list[Layer]:
        """Every layer by itself, in order."""
        middle = [
            jax.tree.map(lambda leaf, r=repeat: leaf[r], layer)
            for repeat in range(self.repeats)
            for layer in self.period
        ]
        return [*self.prefix, *middle, *self.shared * self.repeats, *self.suffix]

    def places(self) -> list[tuple[str, int | None]]:
        """Where each layer's parameters are, in order: (path within the stack, place where they are stacked).

        Those of several layers once.
        """
        middle = [(f"period.{i}", repeat) for repeat in range(self.repeats) for i in range(len(self.period))]
        middle += [(f"shared.{i}", None) for i in range(len(self.shared))]
        prefix = [(f"prefix.{i}", None) for i in range(len(self.prefix))]
        return [*prefix, *middle, *((f"suffix.{i}", None) for i in range(len(self.suffix)))]

    def unstacked(self) -> Stack:
        """The same layers, none of them stacked: decoding slices the parameters once and not for every token."""
        return Stack(tuple(self.layers()), (), (), 0)

    def __call__(
        self,
        x: Hidden,
        context: Any,
        call: Call,
        *,
        caches: tuple[LayerCache, ...] | None = None,
        key: RowKeys | None = None,
    ) -> tuple[Hidden, tuple[LayerCache, ...] | None, Report]:
        """Run every layer; taps are stacked over layers, terms summed. With caches the layers are unrolled.

        Raises UsageError for a pipeline that cannot be, and for taps or caches in one.
        """
        stages = call.layout.parts("layers")
        if stages > 1 and (caches is not None or call.taps):
            raise UsageError(
                f"where.mesh.pipeline={stages}: stages return no activations (taps {', '.join(call.taps)}) and "
                "keep no caches; use where.every.telemetry=0, and decode on another mesh"
            )
        if stages > 1 and self.shared:
            raise UsageError(
                f"where.mesh.pipeline={stages}: every stage would need the parameters that all layers share; use 1"
            )
        pipelined = stages > 1 and self.repeats > 0
        if not pipelined and (caches is not None or call.layers == "unroll"):
            return self._unrolled(x, context, call, caches, key)
        before, after = len(self.prefix), self.depth - len(self.suffix)
        reports: list[Report] = []
        for index, layer in enumerate(self.prefix):
            x, _, report = _run(layer, x, context, call, None, at(key, index))
            reports.append(report)
        if self.repeats:
            middle = self._pipelined if pipelined else self._scanned
            x, middle = middle(x, context, call, key, before)
            reports += middle
        before_last = None
        for index, layer in enumerate(self.suffix, start=after):
            before_last = x
            x, _, report = _run(layer, x, context, call, None, at(key, index))
            reports.append(report)
        return x, None, Report.join(reports).replace(before_last=before_last)

    def _unrolled(
        self, x: Hidden, context: Any, call: Call, caches: tuple[LayerCache, ...] | None, key: RowKeys | None
    ) -> tuple[Hidden, tuple[LayerCache, ...] | None, Report]:
        new, reports, before_last = [], [], None
        for index, layer in enumerate(self.layers()):
            cache, before_last = None if caches is None else caches[index], x
            x, cache, report = _run(layer, x, context, call, cache, at(key, index))
            new.append(cache)
            reports.append(report)
        report = Report.join(reports).replace(before_last=before_last)
        return x, None if caches is None else tuple(new), report

    def _scanned(
        self, x: Hidden, context: Any, call: Call, key: RowKeys | None, first: int
    ) -> tuple[Hidden, list[Report]]:
        def body(x: Hidden, scanned: tuple) -> tuple[Hidden, tuple[Report, ...]]:
            layers, start = scanned
            reports = []
            for offset, layer in enumerate(layers + self.shared):
                x, _, report = _run(layer, x, context, call, None, at(key, start + offset))
                reports.append(report)
            return x, tuple(reports)

        starts = first + len(self.period + self.shared) * jnp.arange(self.repeats)
        x, stacked = jax.lax.scan(body, x, (self.period, starts))
        repeats = [jax.tree.map(lambda leaf, r=repeat: leaf[r], stacked) for repeat in range(self.repeats)]
        return x, [report for repeat in repeats for report in repeat]

    def _pipelined(
        self, x: Hidden, context: Context, call: Call, key: RowKeys | None, first: int
    ) -> tuple[Hidden, list[Report]]:
        layout, step = call.layout, len(self.period)
        rows = x.shape[0] * layout.parts("layers")
        plan = pipeline.schedule(call.pipeline, layout, self.repeats, rows)
        held = pipeline.in_rounds(self.period, plan, layout)

        def stage(x: Hidden, aligned: PyTree, turn: Int[Array, ""]) -> tuple[Hidden, dict[str, Array]]:
            rows, key = aligned
            own = context.of_rows(rows)
            piece = turn * plan.stages + layout.index("layers")

            def body(x: Hidden, repeat: Int[Array, ""]) -> tuple[Hidden, dict[str, Array]]:
                start = first + step * (piece * plan.repeats + repeat)
                reports = []
                for offset, layers in enumerate(held):
                    nth = turn * plan.repeats + repeat
                    x, _, report = _run(layers, x, own, call, None, at(key, start + offset), nth)
                    reports.append(report)
                return x, Report.join(reports).terms

            x, terms = jax.lax.scan(body, x, jnp.arange(plan.repeats), unroll=call.layers == "unroll")
            return x, jax.tree.map(lambda term: jnp.sum(term, axis=0), terms)

        x, terms = pipeline.run(stage, x, (context.by_row(), key), plan, layout)
        return x, [Report(terms=terms)]


def _run(
    layer: Layer,
    x: Hidden,
    context: Any,
    call: Call,
    cache: LayerCache | None,
    key: RowKeys | None,
    nth: Int[Array, ""] | None = None,
) -> tuple[Hidden, LayerCache | None, Report]:
    """One layer, its activations kept or recomputed as `call.remat` says.

    With `nth`, that one of layers that are stacked, taken out here: the backward pass takes it out again.
    """

    def run(layer: Layer, x: Hidden, context: Any, key: RowKeys | None, nth: Int[Array, ""] | None) -> tuple:
        if nth is not None:
            layer = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, nth, keepdims=False), layer)
        return layer(x, context, call, cache, key)

    if cache is not None or (call.remat == "none" and not call.layout.gathers):
        return run(layer, x, context, key, nth)
    # A scanned layer cannot be merged with its recomputation: guarding against it costs time.
    kept = jax.checkpoint(run, policy=remat.policy(call.remat), prevent_cse=call.layers == "unroll")
    return kept(layer, x, context, key, nth)


def initial_stack(
    kind: config.block.Layers | Recurrent,
    layers: int,
    build: Callable[[Any, Initial], Layer],
    init: Initial,
) -> Stack:
    """`layers` layers of one kind or of a pattern; layer i has the same parameters however they are stacked.

    Raises UsageError when the pattern does not fill `layers`.
    """
    match kind:
        case config.Pattern(period, prefix, suffix):
            pass
        case config.Shared(period):
            prefix, suffix = (), ()
        case _:
            prefix, period, suffix = (), (kind,), ()
    middle = layers - len(prefix) - len(suffix)
    if middle < 0 or not period or middle % len(period):
        raise UsageError(
            f"model.layers={layers}: a pattern with prefix {len(prefix)}, period {len(period)} and suffix "
            f"{len(suffix)} needs prefix + suffix + a multiple of the period"
        )
    repeats, step = middle // len(period), len(period)

    def one(kind: Any, index: Array | int) -> Layer:
        return build(kind, init.number(index))

    if isinstance(kind, config.Shared):
        shared = tuple(one(kind, index) for index, kind in enumerate(period))
        return Stack((), (), (), repeats, shared)

    def stacked(kind: Any, offset: int) -> Layer:
        indices = len(prefix) + offset + step * jnp.arange(repeats)
        return jax.vmap(lambda index: one(kind, index))(indices)

    return Stack(
        prefix=tuple(one(kind, index) for index, kind in enumerate(prefix)),
        period=tuple(stacked(kind, offset) for offset, kind in enumerate(period)) if repeats else (),
        suffix=tuple(one(kind, layers - len(suffix) + index) for index, kind in enumerate(suffix)),
        repeats=repeats,
    )
