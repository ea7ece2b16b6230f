import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import Constant, Cosine, Linear, WarmupStableDecay
from jaxlm.config.errors import UsageError
from jaxlm.train import schedules

STEPS = 97


def reference(schedule):
    """The same curve from optax's own pieces."""
    peak, warmup = schedule.peak, schedule.warmup
    rise = optax.linear_schedule(0.0, peak, warmup) if warmup else optax.constant_schedule(peak)
    match schedule:
        case Constant():
            return optax.warmup_constant_schedule(0.0, peak, warmup) if warmup else rise
        case Cosine(final=final) if warmup:
            return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, STEPS, final * peak)
        case Cosine(final=final):
            return optax.cosine_decay_schedule(peak, STEPS, final)
        case Linear(final=final):
            fall = optax.linear_schedule(peak, final * peak, STEPS - warmup)
            return optax.join_schedules([rise, fall], [warmup])
        case WarmupStableDecay(final=final, decay=decay):
            stable, fall = optax.constant_schedule(peak), optax.linear_schedule(peak, final * peak, decay)
            return optax.join_schedules([rise, stable, fall], [warmup, STEPS - decay])


SCHEDULES = [
    kind(peak=3e-3, warmup=warmup, **more)
    for warmup in (0, 1, 10)
    for kind, more in (
        (Constant, {}),
        (Cosine, {"final": 0.1}),
        (Cosine, {"final": 0.0}),
        (Linear, {"final": 0.2}),
        (WarmupStableDecay, {"decay": 30}),
        (WarmupStableDecay, {"decay": 1, "final": 0.5}),
    )
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_equals_optax_at_every_step_and_beyond(schedule):
    steps = np.arange(STEPS + 20)
    ours = jax.jit(jax.vmap(schedules.build(schedule, STEPS)))(steps)
    theirs = jax.vmap(reference(schedule))(steps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)


def test_a_cosine_off_by_one_step_is_another_curve():
    schedule = Cosine(peak=3e-3, warmup=10)
    ours = jax.vmap(schedules.build(schedule, STEPS + 1))(np.arange(STEPS))
    theirs = jax.vmap(reference(schedule))(np.arange(STEPS))
    assert np.abs(ours / np.maximum(theirs, 1e-9) - 1).max() > 1e-3


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear, WarmupStableDecay])
def test_corners(kind):
    warm = schedules.build(kind(peak=2.0, warmup=10), 1000)
    assert warm(0) == 0
    assert warm(5) == 1
    assert warm(10) == 2
    assert schedules.build(kind(peak=2.0, warmup=0), 1000)(0) == 2
    last = {Constant: 2.0, Cosine: 0.2, Linear: 0.0, WarmupStableDecay: 0.0}[kind]
    np.testing.assert_allclose(warm(1000), last, atol=1e-6)


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear, WarmupStableDecay])
def test_a_run_shorter_than_its_warm_up_is_the_beginning_of_the_line(kind):
    more = {"decay": 0} if kind is WarmupStableDecay else {}
    short = schedules.build(kind(peak=1.0, warmup=100, **more), 50)
    np.testing.assert_allclose([short(step) for step in (0, 20, 49)], [0, 0.2, 0.49], rtol=1e-6)


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), WarmupStableDecay()])
def test_one_step(schedule):
    assert jnp.isfinite(schedules.build(schedule, 1)(0))


def test_traced_steps_are_integers_of_any_kind():
    value = schedules.build(Cosine(warmup=3), 10)
    np.testing.assert_allclose([value(jnp.int32(7)), jax.jit(value)(7)], value(7), rtol=1e-6)
    assert value(7).dtype == jnp.float32


@pytest.mark.parametrize(
    ("schedule", "steps"), [(Cosine(warmup=-1), 10), (WarmupStableDecay(decay=-1), 10), (Constant(), 0)]
)
def test_negative_lengths_are_refused(schedule, steps):
    with pytest.raises(UsageError, match="warmup"):
        schedules.build(schedule, steps)
