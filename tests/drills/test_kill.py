"""`kill -9` at any moment, also within a save: the next attempt ends where an undisturbed run ends, bit for bit."""

import random
import time

import pytest

from tests.drills.drill import kill, saved, saving, wait_for

EIGHT = ("--where.mesh.fsdp", "2", "--where.mesh.tensor", "2")
"""Of eight devices: data 2 x fsdp 2 x tensor 2."""


def killed(ground, name: str, seed: int, *words: str, devices: int = 1) -> bool:
    """Starts a run and kills it: every second seed within a save, the others at any time after the first began.

    Returns whether a half-written checkpoint was left.
    """
    draw, run = random.Random(seed), ground.path / name
    process = ground.train(name, *words, devices=devices)
    wait_for(process, lambda: saving(run) or saved(run))
    if seed % 2:
        before = draw.choice((0, 10, 20, 30, 40))
        wait_for(process, lambda: saving(run) and max(saved(run), default=0) >= before)
        time.sleep(draw.uniform(0, 0.02))
    else:
        time.sleep(draw.uniform(0, 2.0))
    kill(process)
    return saving(run)


def drill(ground, straight, seeds, *words: str, devices: int = 1) -> None:
    expected = ground.outcome(straight(*words, devices=devices))
    within = 0
    for seed in seeds:
        name = f"killed-{devices}-{seed}"
        within += killed(ground, name, seed, *words, devices=devices)
        left = saved(ground.path / name)
        again = ground.finish(name, *words, devices=devices)
        if left and left[-1] < 60:
            assert f"resumed at step {left[-1]}" in again.out
        assert ground.outcome(name) == expected, f"seed {seed}"
        assert not saving(ground.path / name), "what a killed save left is still there"
    assert within >= len(seeds) / 4, f"only {within} of {len(seeds)} kills hit a save"


@pytest.mark.nightly
def test_kill_and_resume(ground, straight):
    drill(ground, straight, range(2))


@pytest.mark.nightly
def test_kill_and_resume_on_eight_devices(ground, straight):
    drill(ground, straight, [1], *EIGHT, devices=8)


@pytest.mark.nightly
@pytest.mark.parametrize(("devices", "words"), [(1, ()), (2, ()), (8, EIGHT)])
def test_kill_and_resume_many_times(ground, straight, devices, words):
    drill(ground, straight, range(3, 23), *words, devices=devices)


@pytest.mark.nightly
def test_cached_programs_compute_the_same(ground, straight, tmp_path):
    """What makes the other drills fast does not change a bit: here everything is compiled anew."""
    ground.finish("compiled", JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert ground.outcome("compiled") == ground.outcome(straight())


def test_the_drill_sees_a_difference(ground, straight):
    """Other data ends elsewhere."""
    ground.finish("other", "--data.held_out", "600")
    assert ground.outcome("other")[0] != ground.outcome(straight())[0]
