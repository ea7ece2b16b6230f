"""Gopher (Rae et al. 2021, arXiv:2112.11446) and Chinchilla (Hoffmann et al. 2022, arXiv:2203.15556): their sizes.

GPT-2 with RMSNorm and the relative positions of Transformer-XL (section 2.1), whose projection is the thirteenth
square matrix of a layer: without it the printed counts do not come out, nor with a head that is not tied.
"""

from __future__ import annotations

from jaxlm.config.block import Attention, Block, Plain, RMSNorm
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import TransformerXl

GOPHER = {
    "44m": (8, 512, 16, 32),
    "117m": (12, 768, 12, 64),
    "417m": (12, 1536, 12, 128),
    "1.4b": (24, 2048, 16, 128),
    "7.1b": (32, 4096, 32, 128),
    "280b": (80, 16_384, 128, 128),
}
"""Size -> layers, features, heads, features of a head (table 1 of Gopher's paper)."""


def gopher(size: str) -> Decoder:
    """One of `GOPHER`, with 32,000 tokens and MLPs 4 times as wide as the stream."""
    return _decoder(*GOPHER[size])


def chinchilla_70b() -> Decoder:
    """As many layers as Gopher 280B of half the width (table 4 of Chinchilla's paper)."""
    return _decoder(80, 8192, 64, 128)


def _decoder(layers: int, embed: int, heads: int, head: int) -> Decoder:
    return Decoder(
        vocab=32_000,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, heads, head, bias="all"), Plain(4 * embed, "gelu_tanh", bias="all")),
        position=TransformerXl(),
        norm=RMSNorm(),
        head=Tied(),
    )
