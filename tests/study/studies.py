"""Small studies that tests plan, and planted differences."""

import dataclasses

from jaxlm.config import Arm, Study
from tests.base import experiment

BASE = experiment()
TWENTY = (
    "--train.batch=8",
    "--train.length=32",
    "--train.clip=none",
    "--train.ema=0.99",
    "--train.seed=5",
    "--model.embed=32",
    "--model.layers=3",
    "--model.dropout=0.1",
    "--model.block.mlp.width=96",
    "--model.block.attention.kv_heads=1",
    "--model.block.attention.window=16",
    "--model.norm.epsilon=1e-5",
    "model.head:untied",
    "model.block.wiring:parallel",
    "--optimizer.b2=0.99",
    "--optimizer.schedule.peak=2e-3",
    "--optimizer.schedule.warmup=7",
    "--precision=bfloat16",
    "packing:best_fit",
    "--objective.z_loss=1e-4",
)
"""Changes that an arm from another file can carry without its author's knowledge."""


def study(**fields) -> Study:
    known = {
        "name": "positions",
        "base": BASE,
        "arms": (Arm("rope"), Arm("alibi", ("model.position:alibi",))),
        "seeds": (0, 1, 2),
        "differs": ("model.position",),
    }
    return Study(**{**known, **fields})


def longer(steps: int):
    return dataclasses.replace(BASE, train=dataclasses.replace(BASE.train, steps=steps))
