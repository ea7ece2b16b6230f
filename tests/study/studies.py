"""Small studies that tests plan, and planted differences."""

import dataclasses

from jaxlm.config import Arm, Study
from tests.base import experiment

BASE = experiment()


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
