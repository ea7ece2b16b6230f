"""How soft should a teacher's labels be? Temperatures 1 to 8 (Hinton et al. 2015, arXiv:1503.02531, section 2).

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher
    jaxlm study experiments/ablations/temperature.py --together

A student of two layers of 48 features learns of labels alone, or of labels and the teacher's softened distributions
by halves.
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
        differs=("objective", "teacher"),
        metric="bits_per_byte",
        obtain="jaxlm run experiments/teachers/python.py --run-dir runs/teacher",
    )
