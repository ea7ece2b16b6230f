"""Mixtral 8x7B (Jiang et al. 2024, arXiv:2401.04088) on 64 v5p chips.

    jaxlm plan experiments/pretrain/mixtral_8x7b.py --topology v5p:4x4x4
    jaxlm run experiments/pretrain/mixtral_8x7b.py          # on the slice itself

Rows of 4096, 256 rows a step, 1 T tokens (the paper tells neither, and no training loss). By the compiler's
estimate a step takes 6.11 s, 47 % of the chips' peak, and the run 104,000 chip-hours
(experiments/benchmarks/plans.py). MaxText has measured 52.6 % on 256 chips.
"""

from jaxlm.config import (
    AdamW,
    Autoregressive,
    Cosine,
    Every,
    Experiment,
    Mesh,
    SentencePieceFile,
    Tfds,
    Train,
    Where,
)
from jaxlm.families.mixtral import mixtral


def experiment() -> Experiment:
    return Experiment(
        name="mixtral_8x7b",
        model=mixtral("8x7b"),
        tokenizer=SentencePieceFile("mixtral.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=953_675, batch=256, length=4096),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
