"""A fixed experiment with defaults overridden at every depth, for tests of configs and commands."""

from jaxlm.config import (
    AdamW,
    Attention,
    Block,
    Corpus,
    Cosine,
    Decoder,
    Every,
    Experiment,
    Gated,
    Samples,
    SentencePiece,
    Train,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="base",
        model=Decoder(
            vocab=4096,
            embed=256,
            layers=4,
            block=Block(attention=Attention(heads=4, kv_heads=4, head=64), mlp=Gated(width=704)),
        ),
        tokenizer=SentencePiece(vocab=4096),
        data=Corpus(held_out=200_000),
        optimizer=AdamW(schedule=Cosine(peak=3e-3, warmup=50)),
        train=Train(steps=600, batch=16, length=256),
        samples=Samples(prompts=("def ", "The ", "import ")),
        where=Where(layers="unroll", every=Every(evaluate=200, checkpoint=200)),
    )
