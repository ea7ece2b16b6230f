"""Llama 3.2 1B (its sizes, of the model's card; Grattafiori et al. 2024, arXiv:2407.21783) on one H100.

    jaxlm plan experiments/pretrain/llama32_1b.py --topology h100:1
    jaxlm run experiments/pretrain/llama32_1b.py

Rows of 4096, 16 rows a step, 25 G tokens, the 20 of each parameter that Hoffmann et al. advise (arXiv:2203.15556).
By the roofline a step takes 1.30 s, 42 % of the chip's peak, and the run 137 chip-hours
(experiments/benchmarks/plans.py); one H100 has taken 1.28 s (experiments/benchmarks/planned.py). The model was
distilled from larger ones on more tokens: no loss of it is to be expected.
"""

from jaxlm.config import (
    AdamW,
    Autoregressive,
    Cosine,
    Every,
    Experiment,
    SentencePieceFile,
    Tfds,
    Train,
    Where,
)
from jaxlm.families.llama import llama32


def experiment() -> Experiment:
    return Experiment(
        name="llama32_1b",
        model=llama32("1b"),
        tokenizer=SentencePieceFile("llama3.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=16),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=381_470, batch=16, length=4096),
        precision="bfloat16",
        where=Where(remat="query+key+value+attention+middle", every=Every(evaluate=5000, checkpoint=1000)),
    )
