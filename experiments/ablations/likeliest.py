"""How many of a teacher's likeliest tokens must be written down for a student to learn as of all of them?

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher
    jaxlm study experiments/ablations/likeliest.py --together

The teacher (2.345 bits) reads all 3.4 million tokens once for each length of list; its students, which have half of
its layers and begin from random numbers, read 0.4 million of them in rows of whole documents.
`asked` computes the teacher at each step. All that is not listed is one outcome more. 20 runs: 7.6 minutes of two
cores that others used too, after 3 for the teacher. Held-out bits per byte, lower is better:

    arm           n    mean      sd  difference  95 % interval           p  detectable  verdict
    asked         4  2.4713  0.0229           -  -                       -           -  baseline
    labels        4  2.6114  0.0252     +0.1402  +0.1068 to +0.1735  0.002      0.0723  worse
    likeliest_1   4  2.5697  0.0192     +0.0984  +0.0828 to +0.1140  0.001      0.0339  worse
    likeliest_4   4  2.5389  0.0136     +0.0676  +0.0527 to +0.0825  0.002      0.0322  worse
    likeliest_16  4  2.5063  0.0152     +0.0351  +0.0127 to +0.0575  0.016      0.0485  worse

Of what a teacher of 1,024 tokens brings, 16 bring three quarters, 4 a half, and the share of the likeliest token
alone 30 %. This teacher is small and unsure; a sure one has more of its distribution in as many tokens. A list
says nothing of how the rest is shared out, which is what is lost. The rate is that of
experiments/ablations/shorter.py, found for students on labels alone.
"""

import dataclasses

from experiments.ablations.shorter import TEACHER
from experiments.ablations.shorter import study as shorter
from jaxlm.config import Arm, Autoregressive, BestFit, Distillation, Experiment, ForwardKl, Study


def study() -> Study:
    labels = dataclasses.replace(shorter().base, packing=BestFit())

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
        obtain=shorter().obtain,
    )
