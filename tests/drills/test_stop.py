"""SIGTERM: saved, exit code 75, and the next attempt goes on to the same end."""

import signal
import time

import pytest

from tests.drills.drill import end, saved, saving, trained, wait_for


@pytest.mark.nightly
def test_stopped_twice_in_one_save(ground, straight):
    run = ground.path / "stopped"
    process = ground.train("stopped", "--where.every.checkpoint", "0")
    wait_for(process, trained(run, 10))
    process.send_signal(signal.SIGTERM)
    wait_for(process, lambda: saving(run) or saved(run))
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    (step,) = [int(word) for word in end(process).expect(75).out.split("stopped at step")[1].split()[:1]]
    assert 10 <= step < 60
    assert saved(run) == [step]
    assert not saving(run)
    assert not (run / "DONE").exists()

    # Cadences are free to change between attempts.
    again = ground.finish("stopped")
    assert f"resumed at step {step}" in again.out
    assert ground.outcome("stopped") == ground.outcome(straight())


def test_stopped_before_the_first_step(ground):
    """While data is read or the step is compiled there is nothing to save: it ends at once, to be run again."""
    run = ground.path / "early"
    process = ground.train("early")
    wait_for(process, (run / "data.json").exists)
    process.send_signal(signal.SIGTERM)
    end(process, patience=60).expect(75)
    assert saved(run) == []
    assert "manifests" in {one.name for one in run.iterdir()}
