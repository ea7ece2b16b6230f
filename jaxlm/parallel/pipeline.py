"""A stack of layers cut into stages, through which micro-batches flow; knows no model.

GPipe (Huang et al. 2019, arXiv:1811.06965) with one round; with several, stages take turns at shorter pieces of the
stack, the circular interleaving of Megatron-LM (Narayanan et al. 2021, arXiv:2104.04473, section 2.2) and praxis.
Backward is the transpose: the same schedule in reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped

from jaxlm.config import Pipeline
from jaxlm.config.errors import UsageError
from jaxlm.config.numbers import divisors, nearest_multiples
from jaxlm.parallel.layout import Layout

Stage = Callable[[Array, PyTree, Array], tuple[Array, PyTree]]
"""stage(x [row, ...], aligned rows, round) -> (x, sums): this device's layers of a round, and what adds up."""


@dataclass(frozen=True)
class Schedule:
    """Stage s works at tick t on micro-batch (t - s) mod M of round (t - s) div M, and idles where there is none.

    In round r, stage s holds piece r * stages + s of the stack, `repeats` layers (or periods) long.
    """

    stages: int
    rounds: int
    micro_batches: int
    repeats: int

    @property
    def work(self) -> int:
        """Ticks in which a stage works."""
        return self.rounds * self.micro_batches

    @property
    def ticks(self) -> int:
        """From the first stage's first to the last stage's last."""
        return self.work + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of ticks in which a stage idles: (S - 1) / (R M + S - 1)."""
        return (self.stages - 1) / self.ticks


def schedule(pipeline: Pipeline, layout: Layout, repeats: int, rows: int) -> Schedule:
    """The schedule of a stack of `repeats` for `rows` that the stages share.

    Raises UsageError where stages and rounds do not divide the stack or micro-batches the rows, and where a
    micro-batch would be back at the first stage too late for its next round.
    """
    stages, rounds = layout.shards("layers"), pipeline.rounds
    pieces = stages * rounds
    if repeats % pieces:
        raise UsageError(
            f"a stack of {repeats} repeats does not divide into {pieces} pieces, where.pipeline.rounds={rounds} "
            f"for each of where.mesh.pipeline={stages}: use {nearest_multiples(repeats, pieces)} repeats, or "
            f"where.mesh.pipeline * where.pipeline.rounds among {_divisors(repeats)}"
        )
    micro = pipeline.flight(stages)
    if rows % micro:
        raise UsageError(
            f"{rows} rows for each of the pipelines do not divide into where.pipeline.micro_batches={micro}: use "
            f"{nearest_multiples(rows, micro)} rows, or micro-batches among {_divisors(rows)}"
        )
    if rounds > 1 and micro < stages:
        raise UsageError(
            f"where.pipeline.micro_batches={micro} are fewer than where.mesh.pipeline={stages}: with "
            f"where.pipeline.rounds={rounds} a micro-batch needs {stages} ticks to come around; use at least "
            f"{stages}, or 1 round"
        )
    return Schedule(stages, rounds, micro, repeats // pieces)


def _divisors(count: int) -> str:
    return ", ".join(map(str, divisors(count)))


def run(
    stage: Stage, x: Shaped[Array, "row ..."], aligned: PyTree, plan: Schedule, layout: Layout
) -> tuple[Array, PyTree]:
    """All rounds of a stack within `Layout.spmd`: a device's own rows in, its own rows out; sums of its own stage.

    `aligned` holds arrays that begin with the same rows. A stage that idles computes on what it has, and nothing
    comes of it: neither results nor gradients. Micro-batches wait for their next round on the first stage, and
    when they are done too.
    """
    here, first, last = layout.index("layers"), 0, plan.stages - 1

    def cut(rows: Array) -> Array:
        rows = layout.collect(rows, "layers", 0)
        return rows.reshape(plan.micro_batches, -1, *rows.shape[1:])

    waiting, aligned, nowhere = cut(x), jax.tree.map(cut, aligned), plan.micro_batches
    # One place more, for what comes around before anything is done: keeping what lies elsewhere would cost a copy.
    waiting = jnp.concatenate([waiting, waiting[:1]])

    def take(rows: Array, index: Array) -> Array:
        # A slice, whose transpose is one too: compilers write that in place, and copy for a scatter.
        return jax.lax.dynamic_index_in_dim(rows, index, keepdims=False)

    def tick(carry: tuple[Array, Array, PyTree], now: Array) -> tuple[tuple[Array, Array, PyTree], None]:
        waiting, x, total = carry
        turn, micro = jnp.divmod(now - here, plan.micro_batches)
        works = (turn >= 0) & (turn < plan.rounds)
        x = jnp.where(here == first, take(waiting, micro), x)
        mine = jax.tree.map(lambda rows: take(rows, micro), aligned)
        x, sums = stage(x, mine, jnp.clip(turn, 0, plan.rounds - 1))
        total = jax.tree.map(lambda t, s: t + jnp.where(works, s, jnp.zeros_like(s)), total, sums)
        x = layout.pass_on(x, "layers")
        back = now - last
        slot = jnp.where(back >= 0, back % plan.micro_batches, nowhere)
        waiting = jax.lax.dynamic_update_index_in_dim(waiting, x, slot, 0)
        return (waiting, x, total), None

    example = (waiting[0], jax.tree.map(lambda rows: rows[0], aligned), jnp.int32(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(stage, *example)[1])
    # Idle stages start from rows as good as any: a norm of zeros has no gradient worth the name.
    (waiting, _, total), _ = jax.lax.scan(tick, (waiting, waiting[0], zeros), jnp.arange(plan.ticks))
    done = jnp.where(here == first, waiting[:nowhere], 0).reshape(-1, *x.shape[1:])
    return layout.sum_scatter(done, "layers"), total


def in_rounds(stored: PyTree, plan: Schedule, layout: Layout) -> PyTree:
    """Each leaf [rounds * repeats, ...] of a stage's shard, as the pieces that it works with, round after round.

    A stacked dimension is stored in order, whatever the mesh: piece c lies on stage c div R. It works on stage
    c mod S. As many exchanges as rounds bring each there, a piece a stage in each, and gradients back.
    """
    if plan.rounds == 1:
        return stored
    sends, takes, pairs = _exchanges(plan.stages, plan.rounds)
    here = layout.index("layers")
    slots, arrivals = jnp.asarray(sends)[here], jnp.asarray(takes)[here]

    def exchanged(leaf: Shaped[Array, "stacked ..."]) -> Shaped[Array, "stacked ..."]:
        cut = leaf.reshape(plan.rounds, -1, *leaf.shape[1:])
        arrived = [layout.send(cut[slots[i]], "layers", pairs[i]) for i in range(plan.rounds)]
        return jnp.stack(arrived)[arrivals].reshape(leaf.shape)

    return jax.tree.map(exchanged, stored)


def _exchanges(stages: int, rounds: int) -> tuple[list[list[int]], list[list[int]], list[list[tuple[int, int]]]]:
    """(slot that a stage sends in each exchange, exchange that brings a stage's piece of each round, pairs).

    Piece c = s R + j moves in exchange (c + c div lcm(R, S)) mod R. Of the R pieces of one sender c div lcm is
    constant; those of one receiver, c = r S + d, meet each residue of a class modulo gcd(R, S) once before
    c div lcm steps to the next class. So each stage sends one piece in each exchange, and receives one.
    """
    period = lcm(rounds, stages)
    sends = [[0] * rounds for _ in range(stages)]
    takes = [[0] * rounds for _ in range(stages)]
    pairs: list[list[tuple[int, int]]] = [[] for _ in range(rounds)]
    for piece in range(stages * rounds):
        exchange = (piece + piece // period) % rounds
        sender, receiver = piece // rounds, piece % stages
        sends[sender][exchange] = piece % rounds
        takes[receiver][piece // stages] = exchange
        pairs[exchange].append((sender, receiver))
    return sends, takes, pairs
