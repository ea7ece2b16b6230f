"""Does a small decoder need to be told where tokens are? RoPE beside ALiBi, learned vectors, and nothing.

    jaxlm study experiments/ablations/positions.py --together

Four arms from five seeds, 0.8 million tokens each: 8 min 15 s on two CPU cores. Held-out bits per byte, lower is
better (the page is `positions.html`, beside this file):

    arm      n    mean      sd  difference  95 % interval           p  detectable  verdict
    rope     5  3.0494  0.0262           -  -                       -           -  baseline
    alibi    5  3.0399  0.0265     -0.0095  -0.0359 to +0.0169  0.375      0.0488  inside noise
    learned  5  3.1398  0.0100     +0.0904  +0.0589 to +0.1219  0.004      0.0581  worse
    none     5  3.1105  0.0212     +0.0611  +0.0380 to +0.0841  0.004      0.0425  worse

Without positions a causal decoder can still count its keys (Kazemnejad et al. 2023, arXiv:2305.19466, find it no
worse on tasks of small models); learned vectors have the most to learn from few tokens.
"""

from jaxlm.config import (
    Arm,
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
    Stream,
    Study,
    Train,
    Where,
)


def study() -> Study:
    base = Experiment(
        name="positions",
        model=Decoder(
            vocab=1024,
            embed=64,
            layers=3,
            block=Block(attention=Attention(heads=2, kv_heads=2, head=32), mlp=Gated(width=176)),
        ),
        tokenizer=SentencePiece(vocab=1024),
        data=Corpus(held_out=100_000),
        packing=Stream(positions="row"),  # a document is longer than learned positions reach
        optimizer=Muon(schedule=Linear(peak=2e-2, warmup=20)),
        train=Train(steps=400, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=100, checkpoint=0)),
    )
    return Study(
        name="positions",
        base=base,
        arms=(
            Arm("rope"),
            Arm("alibi", ("model.position:alibi",)),
            Arm("learned", ("model.position:learned", "--model.position.length=128")),
            Arm("none", ("model.position:no_position",)),
        ),
        seeds=(0, 1, 2, 3, 4),
        differs=("model.position", "parameters"),
        metric="bits_per_byte",
    )
