"""Which divergence should a student that is too small for its teacher's language minimize, and on whose text?

    python experiments/teachers/phrases.py
    jaxlm run experiments/teachers/phrases.py --run-dir runs/phrases
    jaxlm study experiments/ablations/divergences.py --together
    python experiments/benchmarks/covering.py

In the language a capital letter is followed by one of eight phrases that have nothing in common. Of all 208 the
teacher (two layers, 116,000 parameters) knows each, and a student (one layer, 18,600) holds a part. Arms: labels
alone; the forward KL, which covers (Hinton et al. 2015, arXiv:1503.02531); the Jensen-Shannon divergence; the
reverse KL, which seeks (Gu et al. 2023, arXiv:2306.08543); and the Jensen-Shannon divergence where half of all
batches are continued by the student itself (GKD, Agarwal et al. 2023, arXiv:2306.13649).
"""

import dataclasses

from experiments.teachers.phrases import experiment as teacher
from jaxlm.config import Arm, Attention, Block, Decoder, Every, Gated, Linear, Muon, Study, Train, Where

TEACHER = "runs/phrases"


def study() -> Study:
    base = dataclasses.replace(
        teacher(),
        model=Decoder(
            vocab=260,
            embed=32,
            layers=1,
            block=Block(attention=Attention(heads=1, kv_heads=1, head=32), mlp=Gated(width=64)),
        ),
        optimizer=Muon(schedule=Linear(peak=8e-2, warmup=20)),
        train=Train(steps=400, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )
    taught = ("objective:distillation", f"--teacher={TEACHER}", "--objective.labels=0", "--objective.weight=1")
    own = ("objective.policy:on_policy", "--objective.policy.prompt=32", "--objective.policy.tokens=96")
    return Study(
        name="divergences",
        base=base,
        arms=(
            Arm("labels"),
            Arm("forward", (*taught, "objective.response:forward_kl")),
            Arm("jsd", (*taught, "objective.response:jsd")),
            Arm("reverse", (*taught, "objective.response:reverse_kl")),
            Arm("gkd", (*taught, "objective.response:jsd", *own)),
        ),
        seeds=(0, 1, 2, 3, 4),
        differs=("objective", "teacher"),
        metric="bits_per_byte",
        obtain="python experiments/teachers/phrases.py && "
        "jaxlm run experiments/teachers/phrases.py --run-dir runs/phrases",
    )
