"""A model whose numbers lie on a coarse grid, as GGUF files have them, taken off it.

    python experiments/benchmarks/off_grid.py noise RUN NOISY      # normal noise on every matrix of the blocks
    jaxlm run experiments/quickstart.py --init NOISY ... --run-dir MOVED      # which training makes up for
    python experiments/benchmarks/off_grid.py share RUN MOVED      # of numbers moved by more than half a step

Rounded to a grid it is already on, a model loses nothing, and methods of rounding cannot be told apart. Training
alone moves numbers by too little: 50 steps of AdamW at 2e-3 moved 4 % of SmolLM2's by more than half a step.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.codec import what_hash
from jaxlm.layers.names import flatten, map_named
from jaxlm.runs.directory import finish, open_run, read_experiment
from jaxlm.tokenizers.build import keep
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.load import load_run
from jaxlm.train.state import State

SHARE = 0.12
"""Of each matrix's standard deviation: that of the noise."""
GROUP, LEVELS = 32, 15
"""Inputs that share a step, and steps of their range: Q4_1."""


def is_matrix(name: str) -> bool:
    return name.startswith("blocks.") and name.endswith(".kernel")


def noise(run: str, to: str) -> None:
    """A run of the same model with noise on it."""
    model, tokenizer, _ = load_run(run)
    theirs = read_experiment(run)

    def shaken(name, leaf):
        if not is_matrix(name):
            return leaf
        draw = np.random.default_rng(sum(map(ord, name))).standard_normal(leaf.shape, np.float32)
        return leaf + SHARE * jnp.std(leaf) * draw

    made = open_run(dataclasses.replace(theirs, name=f"{theirs.name}-noisy", initial=run), to)
    keep(tokenizer, Path(made.path) / "tokenizer")
    with Checkpoints(f"{made.path}/checkpoints", config=what_hash(made.experiment)) as checkpoints:
        checkpoints.save(0, State(jnp.zeros((), jnp.int32), map_named(shaken, model), {}, ()), {})
    finish(made)
    print(made.path)


def share(run: str, to: str) -> None:
    """How many numbers are further than half a step from where they were."""
    before, after = (flatten(load_run(one)[0]) for one in (run, to))
    moved = total = 0
    for name in filter(is_matrix, before):
        old, new = (np.asarray(tree[name]) for tree in (before, after))
        inputs = old.shape[1] * old.shape[2] if "out" in name else old.shape[1]
        old, new = (one.reshape(len(one), -1, GROUP, one.size // len(one) // inputs) for one in (old, new))
        step = (old.max(2, keepdims=True) - old.min(2, keepdims=True)) / LEVELS
        moved += np.sum(np.abs(new - old) > step / 2)
        total += old.size
    print(f"{100 * moved / total:.1f} % of {total:,} numbers moved by more than half a step")


if __name__ == "__main__":
    {"noise": noise, "share": share}[sys.argv[1]](*sys.argv[2:])
    jax.clear_caches()
