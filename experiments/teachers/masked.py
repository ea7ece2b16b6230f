"""An encoder that fills in masked letters of a language of phrases, for smaller ones to learn of.

    python experiments/teachers/phrases.py
    jaxlm run experiments/teachers/masked.py --run-dir runs/masked

The language is that of experiments/teachers/phrases.py: whoever knows its 208 phrases can tell a masked letter by
the letters around it, on either side. 2.5 million bytes, 0.374 held-out nats a masked letter, 91 % of them right,
2 minutes of one core's time. Its students are those of experiments/ablations/encoders.py.
"""

import dataclasses

from experiments.teachers.phrases import experiment as phrases
from jaxlm.config import (
    Attention,
    Block,
    Bytes,
    Encoder,
    Experiment,
    Gated,
    LayerNorm,
    Linear,
    MaskedLm,
    Muon,
    PreNorm,
    Rope,
    Samples,
    Train,
)


def experiment() -> Experiment:
    return dataclasses.replace(
        phrases(),
        name="masked",
        model=Encoder(
            vocab=261,
            embed=64,
            layers=4,
            block=Block(Attention(heads=2, kv_heads=2, head=32), Gated(width=176), PreNorm()),
            position=Rope(),
            norm=LayerNorm(),
        ),
        tokenizer=Bytes(special=("<mask>",)),
        objective=MaskedLm(),
        optimizer=Muon(schedule=Linear(peak=4e-2, warmup=20)),
        train=Train(steps=1200, batch=16, length=128),
        samples=Samples(),
    )
