"""What makes half of a teacher a good student: the layers that it begins with, or what it is taught?

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher
    jaxlm study experiments/ablations/shorter.py --together

DistilBERT's recipe (Sanh et al. 2019, arXiv:1910.01108, sections 3 and 4): every other layer of the teacher;
labels, softened distributions and the cosine of the last hidden states, by 2, 5 and 1. Beside it students of the
same shape that begin from random numbers, that have labels alone, or both, at equal tokens.
"""

import dataclasses

from experiments.teachers.python import experiment as teacher
from jaxlm.config import (
    Arm,
    Autoregressive,
    Distillation,
    Every,
    HiddenStates,
    Linear,
    Muon,
    SoftLabels,
    Study,
    Train,
    Where,
)
from jaxlm.config.distillation import Last
from jaxlm.config.surgery import Cut, every_other

TEACHER = "runs/teacher"


def study() -> Study:
    whole = teacher().model
    scratch = dataclasses.replace(
        teacher(),
        model=dataclasses.replace(whole, layers=whole.layers // 2),
        optimizer=Muon(schedule=Linear(peak=8e-2, warmup=20)),
        train=Train(steps=200, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )
    cut = dataclasses.replace(scratch, initial=TEACHER, cut=Cut(layers=every_other(whole.layers)))
    taught = {
        "teacher": TEACHER,
        "objective": Distillation(
            Autoregressive(),
            SoftLabels(temperature=2.0),
            labels=2.0,
            weight=5.0,
            features=(HiddenStates(1.0, Last(), "cosine"),),
        ),
    }
    return Study(
        name="shorter",
        base=scratch,
        arms=(
            Arm("scratch"),
            Arm("scratch_taught", experiment=dataclasses.replace(scratch, **taught)),
            Arm("cut", experiment=cut),
            Arm("cut_taught", experiment=dataclasses.replace(cut, **taught)),
        ),
        seeds=(0, 1, 2, 3, 4),
        differs=("objective", "teacher", "initial", "cut"),
        metric="bits_per_byte",
        obtain="jaxlm run experiments/teachers/python.py --run-dir runs/teacher",
    )
