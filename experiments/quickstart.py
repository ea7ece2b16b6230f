"""A small language model of Python's documentation and standard library, from raw text in minutes.

    jaxlm run experiments/quickstart.py

Two CPU cores train it in five minutes to 1.93 bits per byte of held-out text, 0.9 of what `gzip -9` needs.
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
    Samples,
    SentencePiece,
    Train,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="quickstart",
        model=Decoder(
            vocab=4096,
            embed=128,
            layers=4,
            block=Block(attention=Attention(heads=2, kv_heads=2, head=64), mlp=Gated(width=352)),
        ),
        tokenizer=SentencePiece(vocab=4096),
        data=Corpus(held_out=200_000),
        optimizer=Muon(schedule=Linear(peak=2e-2, warmup=20)),
        train=Train(steps=760, batch=16, length=256),
        precision="bfloat16",
        samples=Samples(prompts=("def ", "The ", "import ")),
        where=Where(layers="unroll", every=Every(evaluate=190, checkpoint=380)),
    )
