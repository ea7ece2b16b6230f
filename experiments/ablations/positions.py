"""Does a small decoder need to be told where tokens are? RoPE beside ALiBi, learned vectors, and nothing.

    jaxlm study experiments/ablations/positions.py --together

Four arms from five seeds, 0.8 million tokens each: minutes on two CPU cores. Without positions a causal decoder can
still count its keys (Kazemnejad et al. 2023, arXiv:2305.19466, find it no worse on tasks of small models).
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
