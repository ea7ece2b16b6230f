"""Any encoder of the literature on 64 v5p chips, by its name.

    jaxlm show experiments/pretrain/encoder.py model:bert-large
    jaxlm plan experiments/pretrain/encoder.py model:bert-large --topology v5p:4x4x4
    jaxlm run experiments/pretrain/encoder.py model:bert-large         # on the slice itself

Masked tokens in rows of 512, 2048 rows a step, drawn anew in every epoch (RoBERTa, arXiv:1907.11692, section 4.1:
8192 rows a step for 500,000 steps, four times these tokens; the learning rate is that of its large model). Of the
family's paper this has the architecture, and none of the recipe. The plan of BERT-large on 16 v5e chips is kept in
plans/, and printed by experiments/benchmarks/plans.py.
"""

from jaxlm.config import (
    AdamW,
    Cosine,
    Every,
    Experiment,
    MaskedLm,
    Mesh,
    SentencePiece,
    Tfds,
    Train,
    Where,
)
from jaxlm.families.bert import bert


def experiment() -> Experiment:
    return Experiment(
        name="encoder",
        model=bert("base"),
        tokenizer=SentencePiece(vocab=30_000, special=("<mask>",)),
        data=Tfds("c4/en:3.1.0"),
        objective=MaskedLm(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=4e-4, warmup=24_000)),
        train=Train(steps=500_000, batch=2048, length=512),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention+middle+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
