"""The smallest experiment that uses everything: dropout, accumulation, packing, evaluation, checkpoints."""

from jaxlm.config import (
    AdamW,
    Attention,
    Block,
    Bytes,
    Corpus,
    Cosine,
    Decoder,
    Every,
    Experiment,
    Filters,
    Gated,
    Samples,
    TextFiles,
    Train,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="tiny",
        model=Decoder(
            vocab=264,
            embed=16,
            layers=2,
            block=Block(attention=Attention(heads=2, kv_heads=2, head=8), mlp=Gated(width=24)),
            dropout=0.1,
        ),
        tokenizer=Bytes(),
        data=Corpus(source=TextFiles(("text/*.txt",)), filters=Filters(min_chars=10, languages=()), held_out=300),
        optimizer=AdamW(schedule=Cosine(peak=1e-2, warmup=5)),
        train=Train(steps=60, batch=8, length=32),
        samples=Samples(prompts=("the ",), tokens=8),
        where=Where(micro_batches=2, every=Every(log=5, evaluate=30, checkpoint=10)),
    )
