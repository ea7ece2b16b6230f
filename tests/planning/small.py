"""A decoder small enough that TPU and GPU compilers take seconds for its step."""

from jaxlm.config import (
    Attention,
    Autoregressive,
    Block,
    Bytes,
    Decoder,
    Experiment,
    Gated,
    Mesh,
    Train,
    Untied,
    Where,
)


def experiment() -> Experiment:
    return Experiment(
        name="small",
        model=Decoder(
            vocab=512,
            embed=256,
            layers=3,
            block=Block(Attention(heads=2, kv_heads=2, head=128), Gated(width=512)),
            head=Untied(),
        ),
        tokenizer=Bytes(),
        objective=Autoregressive(chunks=1),
        train=Train(steps=100, batch=4, length=128),
        precision="bfloat16",
        where=Where(mesh=Mesh(fsdp=4), remat="full"),
    )
