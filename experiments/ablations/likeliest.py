"""How many of a teacher's likeliest tokens must be written down for a student to learn as from all of them?

jaxlm run experiments/teachers/python.py --run-dir runs/teacher
jaxlm study experiments/ablations/likeliest.py --together
"""

import dataclasses

from experiments.teachers.python import experiment as teacher
from jaxlm.config import (
    Arm,
    Autoregressive,
    BestFit,
    Distillation,
    Every,
    Experiment,
    ForwardKl,
    Linear,
    Muon,
    Study,
    Train,
    Where,
)

TEACHER = "runs/teacher"


def study() -> Study:
    whole = teacher().model
    labels = dataclasses.replace(
        teacher(),
        model=dataclasses.replace(whole, layers=whole.layers // 2),
        packing=BestFit(),
        optimizer=Muon(schedule=Linear(peak=8e-2, warmup=20)),
        train=Train(steps=200, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )

    def taught(likeliest: int) -> Experiment:
        objective = Distillation(Autoregressive(), ForwardKl(), likeliest=likeliest)
        return dataclasses.replace(labels, teacher=TEACHER, objective=objective)

    return Study(
        name="likeliest",
        base=taught(0),
        arms=(
            Arm("asked"),
            Arm("labels", experiment=labels),
            *(Arm(f"likeliest_{count}", experiment=taught(count)) for count in (1, 4, 16)),
        ),
        seeds=(0, 1, 2, 3),
        differs=("objective", "teacher", "flops_per_token"),
        metric="bits_per_byte",
        obtain="jaxlm run experiments/teachers/python.py --run-dir runs/teacher",
    )
