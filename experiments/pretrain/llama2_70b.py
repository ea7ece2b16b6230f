"""LLaMA 2 70B (Touvron et al. 2023, arXiv:2307.09288) on 512 v5p chips.

    jaxlm plan experiments/pretrain/llama2_70b.py --topology v5p:8x8x8
    jaxlm run experiments/pretrain/llama2_70b.py                   # on the slice itself

2 T tokens in rows of 4096, 512 rows a step. By the compiler's estimate a step takes 5.7 s, 67 % of the chips' peak,
and the run 774,000 chip-hours (experiments/benchmarks/plans.py). The paper reports a training loss of about 1.5
nats a token at the end (figure 5).
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
        name="llama2_70b",
        model=llama2("70b"),
        tokenizer=SentencePieceFile("llama2.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=1.5e-4, warmup=2000)),
        train=Train(steps=953_675, batch=512, length=4096),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=64),
            remat="query+key+value+attention+middle+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
