"""Llama 3 405B (Grattafiori et al. 2024, arXiv:2407.21783) on 512 v5p chips.

    jaxlm plan experiments/pretrain/llama3_405b.py --topology v5p:8x8x8
    jaxlm run experiments/pretrain/llama3_405b.py           # on the slice itself

Rows of 4096, 1024 a step (4 M tokens, as the paper at first), 1 T of the paper's 15.6 T tokens. By the compiler's
estimate a step takes 71.8 s, 61 % of the chips' peak, and the run 2.4 million chip-hours
(experiments/benchmarks/plans.py). The paper reports no training loss; MaxText has measured 38.6 % on 256 v6e chips.
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
        name="llama3_405b",
        model=llama3("405b"),
        tokenizer=SentencePieceFile("llama3.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=8e-5, warmup=8000)),
        train=Train(steps=238_419, batch=1024, length=4096),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=128, tensor=2),
            micro_batches=2,
            remat="key+value+middle",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
