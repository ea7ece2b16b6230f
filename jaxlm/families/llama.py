"""LLaMA 2 (arXiv:2307.09288), Llama 3 (arXiv:2407.21783) and Mixtral (arXiv:2401.04088): sizes."""

from __future__ import annotations

from jaxlm.config.model import Attention, Block, Decoder, Gated, Moe, RMSNorm, Rope, Untied

LLAMA2 = {"7b": (32, 4096, 32, 32, 11_008), "13b": (40, 5120, 40, 40, 13_824), "70b": (80, 8192, 64, 8, 28_672)}
LLAMA3 = {"8b": (32, 4096, 32, 8, 14_336), "70b": (80, 8192, 64, 8, 28_672), "405b": (126, 16_384, 128, 8, 53_248)}
"""Size -> layers, features, heads, key and value heads, MLP features; heads have 128 features."""

HEAD = 128


def llama2(size: str) -> Decoder:
    """7b, 13b or 70b: 6,738,415,616, 13,015,864,320 and 68,976,648,192 parameters."""
    return _decoder(*LLAMA2[size], vocab=32_000, theta=10_000.0)


def llama3(size: str) -> Decoder:
    """8b, 70b or 405b: 8,030,261,248, 70,553,706,496 and 405,853,388,800 parameters."""
    return _decoder(*LLAMA3[size], vocab=128_256, theta=500_000.0)


def mixtral_8x7b() -> Decoder:
    """46,702,792,704 parameters, of which a token meets 12,879,925,248."""
    mixture = Moe(experts=8, top_k=2, width=14_336, weights="renormalized")
    block = Block(Attention(heads=32, kv_heads=8, head=HEAD), mixture)
    return Decoder(
        vocab=32_000,
        embed=4096,
        layers=32,
        block=block,
        position=Rope(theta=1e6),
        norm=RMSNorm(1e-5),
        head=Untied(),
    )


def _decoder(
    layers: int, embed: int, heads: int, kv_heads: int, width: int, *, vocab: int, theta: float
) -> Decoder:
    return Decoder(
        vocab=vocab,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, kv_heads, HEAD), Gated(width)),
        position=Rope(theta=theta),
        norm=RMSNorm(1e-5),
        head=Untied(),
    )
