"""How soft should a teacher's labels be? Temperatures 1 to 8 (Hinton et al. 2015, arXiv:1503.02531, section 2).

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher
    jaxlm study experiments/ablations/temperature.py --together

A student of two layers of 48 features (104,688 parameters) learns of labels alone, or of labels and the teacher's
softened distributions by halves. 25 runs of 0.4 million tokens: 9 minutes of one core's time, after 3 for the
teacher (541,536 parameters, 2.345 bits). Held-out bits per byte, lower is better:

    arm     n    mean      sd  difference  95 % interval           p  detectable  verdict
    labels  5  3.1694  0.0203           -  -                       -           -  baseline
    T1      5  2.9810  0.0514     -0.1883  -0.2404 to -0.1362  0.002      0.1039  better
    T2      5  3.0255  0.0356     -0.1439  -0.1887 to -0.0991  0.003      0.0893  better
    T4      5  3.0872  0.0233     -0.0822  -0.1198 to -0.0446  0.007      0.0750  better
    T8      5  3.1298  0.0288     -0.0395  -0.0665 to -0.0126  0.015      0.0537  better

A teacher helps at each temperature, and the softer its labels are, the less. In Hinton's section 3 small nets
learn best at 2.5 to 4, of labels of ten classes that are nearly certain, and are judged by their errors. Here one
token of 1,024 is seldom certain, and only the divergence at temperature 1 has the optimum of what students are
judged by.

The rate is one that is good for the baseline, from a seed that is not in the study: of 0.01 to 0.16, doubled each
time, 0.08 and 0.16 were the best and alike.
"""

import dataclasses

from experiments.teachers.python import experiment as teacher
from jaxlm.config import Arm, Attention, Block, Decoder, Every, Gated, Linear, Muon, Study, Train, Where

TEACHER = "runs/teacher"


def study() -> Study:
    base = dataclasses.replace(
        teacher(),
        model=Decoder(
            vocab=1024,
            embed=48,
            layers=2,
            block=Block(attention=Attention(heads=3, kv_heads=3, head=16), mlp=Gated(width=128)),
        ),
        optimizer=Muon(schedule=Linear(peak=8e-2, warmup=20)),
        train=Train(steps=200, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )
    taught = ("objective:distillation", f"--teacher={TEACHER}")
    return Study(
        name="temperature",
        base=base,
        arms=(
            Arm("labels"),
            *(Arm(f"T{t}", (*taught, f"--objective.response.temperature={t}")) for t in (1, 2, 4, 8)),
        ),
        seeds=(0, 1, 2, 3, 4),
        differs=("objective", "teacher", "flops_per_token"),
        metric="bits_per_byte",
        obtain="jaxlm run experiments/teachers/python.py --run-dir runs/teacher",
    )
