"""PaLM (Chowdhery et al. 2022, arXiv:2204.02311): its sizes.

Parallel branches, SwiGLU, one key and value head, RoPE, no biases, a tied head (section 2). Norms have no biases
either: here they are RMSNorm, as T5X has them. The paper's scale of initial embeddings and logits is not kept.
"""

from __future__ import annotations

from jaxlm.config.block import Attention, Block, Gated, Parallel, RMSNorm
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Rope

SIZES = {"8b": (32, 4096, 16), "62b": (64, 8192, 32), "540b": (118, 18_432, 48)}
"""Size -> layers, features, heads of 256 features (table 1)."""


def palm(size: str) -> Decoder:
    """8b, 62b or 540b: 8.63, 62.50 and 540.35 billion parameters, 256,000 tokens."""
    layers, embed, heads = SIZES[size]
    return Decoder(
        vocab=256_000,
        embed=embed,
        layers=layers,
        block=Block(Attention(heads, 1, 256), Gated(4 * embed), Parallel()),
        position=Rope(),
        norm=RMSNorm(),
        head=Tied(),
    )
