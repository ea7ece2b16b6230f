"""GPT-3 (Brown et al. 2020, arXiv:2005.14165, table 2.1) and Jurassic-1 (Lieber et al. 2021): the largest sizes."""

from __future__ import annotations

from jaxlm.config.model import Attention, Block, Decoder, LayerNorm, Learned, Plain, Tied


def gpt3_175b() -> Decoder:
    """174,604,259,328 parameters; every layer dense (the paper alternates with locally banded ones)."""
    return _decoder(layers=96, embed=12_288, heads=96, vocab=50_257)


def jurassic1_178b() -> Decoder:
    """Jurassic-1 Jumbo: fewer and wider layers than GPT-3, 256,000 tokens."""
    return _decoder(layers=76, embed=13_824, heads=96, vocab=256_000)


def _decoder(*, layers: int, embed: int, heads: int, vocab: int) -> Decoder:
    attention = Attention(heads, heads, embed // heads, bias="all")
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(attention, Plain(4 * embed, "gelu_tanh", bias="all")),
        position=Learned(2048),
        norm=LayerNorm(),
        head=Tied(),
    )
