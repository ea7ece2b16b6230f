"""Micro-batches through stages, against a plain loop over the layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm.config import Pipeline
from jaxlm.config.errors import UsageError
from jaxlm.parallel import pipeline
from jaxlm.parallel.layout import single_device
from tests.tiny import layout

ROWS, WIDTH, PERIODS = 16, 3, 8
AXES = ("embed", "features")
DRAW = np.random.default_rng(0)
W = jnp.asarray(DRAW.normal(size=(PERIODS, WIDTH, WIDTH)), jnp.float32)
X = jnp.asarray(DRAW.normal(size=(ROWS, WIDTH)), jnp.float32)
TARGETS = jnp.asarray(DRAW.normal(size=ROWS), jnp.float32)


def layer(w, x, extra, number):
    """A layer that knows which it is and whose rows it sees."""
    return x + jnp.tanh(x @ w + extra[:, None] + number)


def looped(w, x, extra):
    sums = 0.0
    for number in range(PERIODS):
        x = layer(w[number], x, extra, number)
        sums += jnp.sum(jnp.square(x))
    return jnp.sum(jnp.sin(x) * extra[:, None]) + 0.1 * sums, sums


def through(where, flow, w, x, extra):
    """The same of one device within `spmd`, and the sum over layers of what each adds."""
    plan = pipeline.schedule(flow, where, PERIODS, ROWS // where.shards("row") * where.shards("layers"))
    held = pipeline.in_rounds(w, plan, where)

    def stage(x, extra, turn):
        def body(x, repeat):
            number = (turn * plan.stages + where.index("layers")) * plan.repeats + repeat
            x = layer(held[turn * plan.repeats + repeat], x, extra, number)
            return x, jnp.sum(jnp.square(x))

        x, sums = jax.lax.scan(body, x, jnp.arange(plan.repeats))
        return x, jnp.sum(sums)

    x, sums = pipeline.run(stage, x, extra, plan, where)
    return jnp.sum(jnp.sin(x) * extra[:, None]) + 0.1 * sums, sums


def gradients(where, flow):
    """((loss, sums), gradients in w, x and extra)."""
    specs = (where.stored_spec(AXES, W.shape), where.spec(("row",), X.shape[:1]), where.spec(("row",), (ROWS,)))
    whole = PartitionSpec()

    def of_a_device(w, x, extra):
        both, grads = jax.value_and_grad(functools.partial(through, where, flow), argnums=(0, 1, 2), has_aux=True)(
            w, x, extra
        )
        return where.total(both), (where.total_gradient(grads[0], specs[0], "float32"), *grads[1:])

    return jax.jit(where.spmd(of_a_device, specs, (whole, specs)))(W, X, TARGETS)


def far(got, wanted) -> float:
    """The largest distance of any leaf, relative to its norm."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


WANTED = jax.jit(jax.value_and_grad(looped, argnums=(0, 1, 2), has_aux=True))(W, X, TARGETS)
CASES = [
    ({"data": 4, "pipeline": 2}, Pipeline(4)),
    ({"data": 4, "pipeline": 2}, Pipeline(1)),
    ({"data": 2, "pipeline": 4}, Pipeline(4)),
    ({"data": 2, "pipeline": 4}, Pipeline(2)),
    ({"data": 4, "pipeline": 2}, Pipeline(4, 2)),
    ({"data": 4, "pipeline": 2}, Pipeline(2, 4)),
    ({"data": 2, "pipeline": 4}, Pipeline(8, 2)),
    ({"data": 2, "pipeline": 4}, Pipeline(4, 2)),
    ({"pipeline": 8}, Pipeline(16)),
]


@pytest.mark.parametrize(("mesh", "flow"), CASES)
def test_a_pipeline_is_a_loop_over_layers(mesh, flow):
    assert far(gradients(layout(**mesh), flow), WANTED) < 1e-6


@pytest.mark.parametrize("more", [-1, 1])
def test_a_tick_too_few_or_too_many_is_seen(monkeypatch, more):
    """What is done lies on the first stage only after the last tick, and is overwritten by the next."""
    monkeypatch.setattr(pipeline.Schedule, "ticks", property(lambda plan: plan.work + plan.stages - 1 + more))
    assert far(gradients(layout(data=4, pipeline=2), Pipeline(4, 2)), WANTED) > 1e-2


def test_an_idle_stage_adds_nothing(monkeypatch):
    """Without the mask of sums, what idle stages compute would count."""
    where = layout(data=4, pipeline=2)
    (_, sums), _ = gradients(where, Pipeline(4))
    np.testing.assert_allclose(sums, WANTED[0][1], rtol=1e-6)
    masked = jnp.where
    monkeypatch.setattr(jnp, "where", lambda c, x, y: x if jnp.ndim(x) == 0 else masked(c, x, y))
    (_, sums), _ = gradients(where, Pipeline(4))
    assert abs(sums / WANTED[0][1] - 1) > 1e-2


def test_layers_in_the_order_of_storage_are_seen(monkeypatch):
    monkeypatch.setattr(pipeline, "in_rounds", lambda stored, plan, where: stored)
    assert far(gradients(layout(data=4, pipeline=2), Pipeline(4)), WANTED) < 1e-6
    assert far(gradients(layout(data=4, pipeline=2), Pipeline(4, 2)), WANTED) > 1e-2


@pytest.mark.parametrize(("stages", "rounds"), [(2, 2), (4, 2), (2, 4), (6, 4), (3, 5), (8, 8), (12, 18)])
def test_each_stage_sends_and_receives_one_piece_in_each_exchange(stages, rounds):
    sends, takes, pairs = pipeline._exchanges(stages, rounds)
    held = {stage: {} for stage in range(stages)}
    for exchange, sent in enumerate(pairs):
        assert sorted(sender for sender, _ in sent) == list(range(stages))
        assert sorted(receiver for _, receiver in sent) == list(range(stages))
        for sender, receiver in sent:
            held[receiver][exchange] = sender * rounds + sends[sender][exchange]
    for stage in range(stages):
        assert [held[stage][takes[stage][turn]] for turn in range(rounds)] == [
            turn * stages + stage for turn in range(rounds)
        ]


@pytest.mark.parametrize(("flow", "ticks"), [(Pipeline(4), 7), (Pipeline(), 19), (Pipeline(8, 2), 19)])
def test_ticks(flow, ticks):
    """Stage 3 of 4 takes up the last of M micro-batches R M + 2 ticks after the first of all began."""
    plan = pipeline.schedule(flow, layout(pipeline=4), PERIODS, ROWS)
    assert (plan.ticks, plan.bubble) == (ticks, 3 / ticks)
    done = [
        (tick, stage, *divmod(tick - stage, plan.micro_batches))
        for tick in range(ticks)
        for stage in range(4)
        if 0 <= tick - stage < plan.work
    ]
    when = {(turn, micro, stage): tick for tick, stage, turn, micro in done}
    assert len(when) == len(done) == 4 * plan.work
    assert all(when[turn, micro, stage] > when[turn, micro, stage - 1] for turn, micro, stage in when if stage)
    assert all(when[turn, micro, 0] > when[turn - 1, micro, 3] for turn, micro, stage in when if turn)


@pytest.mark.parametrize(
    ("flow", "repeats", "rows", "message"),
    [
        (Pipeline(4), 6, 16, r"6 repeats does not divide into 4 pieces.*: use 4 or 8 repeats, or .* 1, 2, 3, 6$"),
        (Pipeline(4, 3), 8, 16, r"8 repeats does not divide into 12 pieces, where.pipeline.rounds=3.*: use 12 rep"),
        (Pipeline(6), 8, 16, r"16 rows .*micro_batches=6: use 12 or 18 rows, or .* 1, 2, 4, 8, 16$"),
        (Pipeline(), 8, 24, r"24 rows .*micro_batches=16: use 16 or 32 rows"),
        (Pipeline(2, 2), 8, 16, r"micro_batches=2 are fewer than where.mesh.pipeline=4: .* at least 4, or 1 round"),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(flow, repeats, rows, message):
    with pytest.raises(UsageError, match=message):
        pipeline.schedule(flow, layout(pipeline=4), repeats, rows)


def test_on_one_device_nothing_travels():
    one = through(single_device(), Pipeline(4, 2), W, X, TARGETS)
    np.testing.assert_allclose(one, WANTED[0], rtol=1e-6)
