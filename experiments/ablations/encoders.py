"""Smaller encoders. (to be written)"""

import dataclasses

from experiments.teachers.masked import experiment as teacher
from jaxlm.config import (
    Arm,
    Distillation,
    Every,
    Experiment,
    HiddenStates,
    Linear,
    MaskedLm,
    Muon,
    NoResponse,
    SoftLabels,
    Study,
    Train,
    Where,
)
from jaxlm.config.distillation import AttentionMaps, AttentionScores, EmbeddingOutput, Last, Relations
from jaxlm.config.surgery import Cut, every_other

TEACHER, IGNORANT = "runs/masked", "runs/unmasked"

DISTILBERT = Distillation(
    MaskedLm(),
    SoftLabels(temperature=2.0),
    labels=2.0,
    weight=5.0,
    at="tokens",
    features=(HiddenStates(1.0, Last(), "cosine"),),
)
TINYBERT = Distillation(
    MaskedLm(),
    SoftLabels(temperature=1.0),
    labels=0.0,
    weight=1.0,
    features=(EmbeddingOutput(), HiddenStates(), AttentionScores()),
)
MINILM = Distillation(
    MaskedLm(), NoResponse(), labels=1.0, weight=0.0, features=(AttentionMaps(), Relations("values"))
)


def study() -> Study:
    whole = teacher().model
    scratch = dataclasses.replace(
        teacher(),
        model=dataclasses.replace(whole, layers=whole.layers // 2),
        optimizer=Muon(schedule=Linear(peak=2e-2, warmup=20)),
        train=Train(steps=300, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )
    cut = dataclasses.replace(scratch, initial=TEACHER, cut=Cut(layers=every_other(whole.layers)))

    def arms(prefix: str, begun: Experiment) -> tuple[Arm, ...]:
        taught = dataclasses.replace(begun, teacher=TEACHER)
        return (
            Arm(f"{prefix}labels", experiment=begun),
            Arm(f"{prefix}distilbert", experiment=dataclasses.replace(taught, objective=DISTILBERT)),
            Arm(f"{prefix}tinybert", experiment=dataclasses.replace(taught, objective=TINYBERT)),
            Arm(f"{prefix}minilm", experiment=dataclasses.replace(taught, objective=MINILM)),
        )

    ignorant = dataclasses.replace(scratch, teacher=IGNORANT, objective=MINILM)
    return Study(
        name="encoders",
        base=scratch,
        arms=(*arms("", scratch), *arms("cut_", cut), Arm("ignorant", experiment=ignorant)),
        seeds=(0, 1, 2, 3, 4),
        differs=("objective", "teacher", "initial", "cut", "flops_per_token"),
        metric="masked_lm",
        obtain="python experiments/teachers/phrases.py && "
        "jaxlm run experiments/teachers/masked.py --run-dir runs/masked && "
        "jaxlm run experiments/teachers/masked.py --run-dir runs/unmasked --train.steps 1",
    )
