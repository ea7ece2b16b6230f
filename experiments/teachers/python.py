"""A decoder of Python's documentation and standard library for smaller ones to learn of.

    jaxlm run experiments/teachers/python.py --run-dir runs/teacher

2.5 million tokens, 2.345 held-out bits per byte, 3 minutes of one core's time. Its students are those of
experiments/ablations/temperature.py and shorter.py.
"""

from jaxlm.config import (
    Attention,
    Block,
    Corpus,
    Decoder,
    Every,
    Experiment,
    Gated,
    Linear,
    Muon,
    SentencePiece,
    Train,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="teacher",
        model=Decoder(
            vocab=1024,
            embed=96,
            layers=4,
            block=Block(attention=Attention(heads=3, kv_heads=3, head=32), mlp=Gated(width=256)),
        ),
        tokenizer=SentencePiece(vocab=1024),
        data=Corpus(held_out=100_000),
        optimizer=Muon(schedule=Linear(peak=2e-2, warmup=40)),
        train=Train(steps=1200, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=100, evaluate=400, checkpoint=0)),
    )
