"""LLaMA 2 13B (Touvron et al. 2023, arXiv:2307.09288) on 64 v5p chips.

    jaxlm plan experiments/pretrain/llama2_13b.py --topology v5p:4x4x4
    jaxlm run experiments/pretrain/llama2_13b.py            # on the slice itself

2 T tokens in rows of 4096, 256 rows a step (the paper: 1024). By the compiler's estimate a step takes 4.32 s, 68 %
of the chips' peak, and the run 146,000 chip-hours (experiments/benchmarks/plans.py). The paper reports a training
loss of about 1.7 nats a token at the end (figure 5).
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
from jaxlm.families.llama import llama2


def experiment() -> Experiment:
    return Experiment(
        name="llama2_13b",
        model=llama2("13b"),
        tokenizer=SentencePieceFile("llama2.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=1_907_349, batch=256, length=4096),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention+middle+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
