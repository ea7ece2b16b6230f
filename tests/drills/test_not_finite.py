"""A gradient that is not finite stops the run, and what was saved before stays good."""

import pytest

from tests.drills.drill import saved

POISON = '''
from dataclasses import dataclass

import jax.numpy as jnp

from jaxlm.objectives.prediction import Prediction


@dataclass(frozen=True)
class Poisoned(Prediction):
    """Infinity times a sum that is not zero, in one row of step 15 (counted from 1)."""

    def totals(self, model, batch, key, call, frozen):
        sums, more = super().totals(model, batch, key, call, frozen)
        bad = jnp.any(batch.rows == 8 * 14 + 3)
        return {name: value * jnp.where(bad, jnp.inf, 1.0) for name, value in sums.items()}, more


objective = Poisoned()
'''
WORDS = ("objective:custom", "--objective.path", "poison:objective")


@pytest.mark.nightly
def test_not_finite_stops_at_its_step_and_leaf(ground):
    (ground.path / "poison.py").write_text(POISON)
    run = ground.path / "poisoned"
    for attempt in (1, 2):  # the second shows that the checkpoint can be used, and that the step is bad again
        process = ground.finish("poisoned", *WORDS, code=1)
        assert "jaxlm run: step 15: the gradient of " in process.err
        leaf = process.err.split("the gradient of ")[1].split()[0]
        assert leaf.startswith(("embedding", "blocks", "stack", "head", "norm")), leaf
        assert "Traceback" not in process.err
        assert len(process.err.strip().splitlines()) == 1, process.err
        assert saved(run) == [10]
        assert not (run / "DONE").exists()
        assert ("resumed at step 10" in process.out) == (attempt == 2)
