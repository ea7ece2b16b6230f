"""Any decoder of the literature on 64 v5p chips, by its name.

    jaxlm plan experiments/pretrain/decoder.py model:gemma2-9b --topology v5p:4x4x4
    jaxlm run experiments/pretrain/decoder.py model:gemma2-9b      # on the slice itself

Rows of 2048 tokens, 512 rows a step, as many steps as make 1 T tokens; the learning rate is that of LLaMA 2 7B
(arXiv:2307.09288, section 2.2). A plan of one size of every family is kept in plans/, and printed by
experiments/benchmarks/plans.py: that its step compiles for these chips and fits, and what it comes to. Of the
family's paper this has the architecture, and none of the recipe.
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
from jaxlm.families.llama import mistral_7b


def experiment() -> Experiment:
    return Experiment(
        name="decoder",
        model=mistral_7b(),
        tokenizer=SentencePieceFile("tokenizer.model"),
        data=Tfds("c4/en:3.1.0"),
        objective=Autoregressive(chunks=4),
        optimizer=AdamW(schedule=Cosine(peak=3e-4, warmup=2000)),
        train=Train(steps=953_674, batch=512, length=2048),
        precision="bfloat16",
        where=Where(
            mesh=Mesh(fsdp=32),
            remat="query+key+value+attention+middle+gate+up",
            flags=("async_gathers",),
            every=Every(evaluate=5000, checkpoint=1000),
        ),
    )
