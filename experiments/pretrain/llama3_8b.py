"""Llama 3 8B (Grattafiori et al. 2024, arXiv:2407.21783) on 256 v6e chips.

    jaxlm plan experiments/pretrain/llama3_8b.py --topology v6e:16x16
    jaxlm run experiments/pretrain/llama3_8b.py                    # on the slice itself

Rows of 4096, 512 rows a step, 1 T of the paper's 15 T tokens. By the compiler's estimate a step takes 1.02 s, 42 %
of the chips' peak, and the run 35,000 chip-hours (experiments/benchmarks/plans.py). MaxText has measured 45.5 %
with rows of 8192; the paper reports no training loss.
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
from jaxlm.families.llama import llama3


def experiment() -> Experiment:
    return Experiment(
        name="llama3_8b",
        model=llama3("8b"),
        tokenizer=SentencePieceFile("llama3.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=476_838, batch=512, length=4096),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention+middle+gate",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
