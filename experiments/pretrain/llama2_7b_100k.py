"""LLaMA 2 7B on rows of 100,352 tokens, the window of Claude 2, on 64 v5p chips.

    jaxlm plan experiments/pretrain/llama2_7b_100k.py --topology v5p:4x4x4
    jaxlm run experiments/pretrain/llama2_7b_100k.py --init RUN    # on the slice itself, from a run of rows of 4096

Long-context fine-tuning as in Code Llama (Rozière et al. 2023, arXiv:2308.12950, section 2.4): rotary base 10^6,
learning rate 2e-5, 10,000 steps; rows are six times as long as theirs. Eight rows a step, each spread over eight
chips by all-to-all attention. By the compiler's estimate a step takes 7.4 s, 44 % of the chips' peak, and the run
1,300 chip-hours (experiments/benchmarks/plans.py). The paper reports no training loss. On 64 H100s: `--topology
h100:64 --where.flags`.
"""

import dataclasses

from jaxlm.config import (
    AdamW,
    Autoregressive,
    Cosine,
    Every,
    Experiment,
    Mesh,
    Rope,
    SentencePieceFile,
    Tfds,
    Train,
    Where,
)
from jaxlm.families.llama import llama2


def experiment() -> Experiment:
    return Experiment(
        name="llama2_7b_100k",
        model=dataclasses.replace(llama2("7b"), position=Rope(theta=1e6)),
        tokenizer=SentencePieceFile("llama2.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=8),
        optimizer=AdamW(schedule=Cosine(peak=2e-5, warmup=1000)),
        train=Train(steps=10_000, batch=8, length=100_352),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(context=8),
            attention="all_to_all",
            flags=("async_gathers",),
            remat="query+key+value+attention",
            every=Every(evaluate=500, checkpoint=500),
        ),
    )
