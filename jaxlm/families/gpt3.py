"""GPT-3 (Brown et al. 2020, arXiv:2005.14165) and Jurassic-1 (Lieber et al. 2021): their sizes."""

from __future__ import annotations

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Learned

SIZES = {
    "125m": (12, 768, 12, 64),
    "350m": (24, 1024, 16, 64),
    "760m": (24, 1536, 16, 96),
    "1.3b": (24, 2048, 16, 128),
    "2.7b": (32, 2560, 32, 80),
    "6.7b": (32, 4096, 32, 128),
    "13b": (40, 5140, 40, 128),
    "175b": (96, 12_288, 96, 128),
}
"""Size -> layers, features, heads, features of a head (table 2.1).

The 13b is as printed: its heads have 20 features fewer than the stream. The 1.3b is not: with the 24 heads of 128
that are printed it would have 1.5 billion parameters, with 16 it has the 1.3 that are printed too.
"""


def gpt3(size: str) -> Decoder:
    """One of `SIZES`, as the paper's GPT-2 in rows of 2048 tokens; 175b has 174,604,259,328 parameters.

    Every layer is dense (the paper alternates with locally banded ones).
    """
    layers, embed, heads, head = SIZES[size]
    return _decoder(layers, embed, heads, head, vocab=50_257)


def jurassic1_178b() -> Decoder:
    """Jurassic-1 Jumbo: fewer and wider layers than GPT-3, 256,000 tokens."""
    return _decoder(76, 13_824, 96, 144, vocab=256_000)


def _decoder(layers: int, embed: int, heads: int, head: int, *, vocab: int) -> Decoder:
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, heads, head, bias="all"), Plain(4 * embed, "gelu_tanh", bias="all")),
        position=Learned(2048),
        norm=LayerNorm(),
        head=Tied(),
    )
