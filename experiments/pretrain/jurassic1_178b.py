"""Jurassic-1 178B (Lieber et al. 2021) on 512 v5p chips.

    jaxlm plan experiments/pretrain/jurassic1_178b.py --topology v5p:8x8x8
    jaxlm run experiments/pretrain/jurassic1_178b.py        # on the slice itself

300 B tokens in rows of 2048, 1536 rows a step (3.2 M tokens, as the paper). By the compiler's estimate a step takes
26.4 s, 55 % of the chips' peak, and the run 359,000 chip-hours (experiments/benchmarks/plans.py). The paper reports
no training loss.
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
from jaxlm.families.gpt3 import jurassic1_178b


def experiment() -> Experiment:
    return Experiment(
        name="jurassic1_178b",
        model=jurassic1_178b(),
        tokenizer=SentencePieceFile("jurassic1.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=6e-5, warmup=120)),
        train=Train(steps=95_367, batch=1536, length=2048),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=64, tensor=2),
            micro_batches=3,
            remat="query+key+value+attention+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
