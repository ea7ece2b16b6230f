"""GPT-3 175B (Brown et al. 2020, arXiv:2005.14165) on 512 v5p chips.

    jaxlm plan experiments/pretrain/gpt3_175b.py --topology v5p:8x8x8
    jaxlm run experiments/pretrain/gpt3_175b.py             # on the slice itself

300 B tokens in rows of 2048, 1536 rows a step (3.2 M tokens, table 2.1), every layer dense. By the compiler's
estimate a step takes 22.7 s, 63 % of the chips' peak, and the run 308,000 chip-hours
(experiments/benchmarks/plans.py). The paper reports a validation loss of about 1.73 nats a token (figure 3.1).
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
from jaxlm.families.gpt3 import gpt3


def experiment() -> Experiment:
    return Experiment(
        name="gpt3_175b",
        model=gpt3("175b"),
        tokenizer=SentencePieceFile("gpt3.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=6e-5, warmup=120)),
        train=Train(steps=95_367, batch=1536, length=2048),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=128),
            remat="query+key+value+attention",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
