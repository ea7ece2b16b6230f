"""Any encoder-decoder of the literature on 64 v5p chips, by its name.

    jaxlm show experiments/pretrain/encoder_decoder.py model:t5-11b
    jaxlm plan experiments/pretrain/encoder_decoder.py model:t5-11b --topology v5p:4x4x4
    jaxlm run experiments/pretrain/encoder_decoder.py model:t5-11b     # on the slice itself

Spans are hidden as T5 hides them (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4): 15 % of the text, which the
decoder writes in rows of 128 tokens. Rows of 512 tokens, 2048 rows a step, as many steps as make 1 T tokens
(section 3.7); the learning rate is that of LLaMA 2 7B. Of the family's paper this has the architecture, and of its
recipe no more than that. The plan of T5-11B on 256 v5e chips is kept in plans/, and printed by
experiments/benchmarks/plans.py.
"""

from jaxlm.config import (
    AdamW,
    Cosine,
    Every,
    Experiment,
    Mesh,
    SentencePiece,
    SpanCorruption,
    Tfds,
    Train,
    Where,
)
from jaxlm.families.t5 import t5


def experiment() -> Experiment:
    return Experiment(
        name="encoder_decoder",
        model=t5("base"),
        tokenizer=SentencePiece(vocab=32_000, sentinels=100),
        data=Tfds("c4/en:3.1.0"),
        objective=SpanCorruption(target_length=128, chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=953_674, batch=2048, length=512),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention+middle+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
