"""What makes half of a teacher a good student: the layers that it begins with, or what it is taught?

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher
    jaxlm study experiments/ablations/shorter.py --together

DistilBERT's recipe (Sanh et al. 2019, arXiv:1910.01108, sections 3 and 4): every other layer of the teacher;
labels, softened distributions and the cosine of the last hidden states, by 2, 5 and 1. Beside it students of the
same shape that begin from random numbers, that have labels alone, or both, at equal tokens. 20 runs of 0.4
million tokens: 9 minutes of one core's time, after 3 for the teacher (4 layers, 541,536 parameters, 2.345 bits;
students have 319,968). Held-out bits per byte, lower is better:

    arm             n    mean      sd  difference  95 % interval           p  detectable  verdict
    scratch         5  2.9298  0.0452           -  -                       -           -  baseline
    scratch_taught  5  2.6715  0.0123     -0.2583  -0.3143 to -0.2024  <0.001     0.1032  better
    cut             5  2.7272  0.0342     -0.2026  -0.2388 to -0.1663  <0.001     0.0669  better
    cut_taught      5  2.4966  0.0173     -0.4332  -0.4806 to -0.3858  <0.001     0.0874  better

Both help, and what they bring nearly adds up, as in the paper's table 4, where a student without either its
beginning or its teacher's distributions is worse. After a sixth of the teacher's tokens a quarter of the distance
from the baseline to it is left. Tokens are equal and computing is not: with its teacher's forward pass a run
takes 1.6 times the FLOPs.

The rate is the best for the baseline, from a seed that is not in the study: of 0.01 to 0.16, doubled each time.
It is too high for layers that were trained before, and those students might gain more at a lower one. The teacher
is a decoder: encoders fill in 7 to 10 % of masked tokens after 1.2 million tokens
(experiments/benchmarks/masked_accuracy.py), which is no teacher for minutes.
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
        differs=("objective", "teacher", "initial", "cut", "flops_per_token"),
        metric="bits_per_byte",
        obtain="jaxlm run experiments/teachers/python.py --run-dir runs/teacher",
    )
