"""What a model is made of.

Every variant is a small frozen dataclass in a union; no boolean selects an architecture. The rooms that build
from these (`layers`, `models`) do so by one `match` each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# --- positions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

    theta: float = 10_000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 1.0
    """Share of each head's features that is rotated; the rest passes unchanged."""
    pairs: Literal["halves", "interleaved"] = "halves"
    """Which features form a plane: (i, i + d/2) as in LLaMA, or (2i, 2i + 1) as in the paper."""


@dataclass(frozen=True)
class Learned:
    """A trained vector for each position, added to the token embedding (GPT-2, BERT)."""

    length: int = 1024
    """Number of positions that have a vector."""


@dataclass(frozen=True)
class NoPosition:
    """No position information beyond the causal mask (Kazemnejad et al. 2023, arXiv:2305.19466)."""


Position = Rope | Learned | NoPosition

# --- parts of a block --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * scale (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    epsilon: float = 1e-6


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv:1607.06450)."""

    epsilon: float = 1e-5


Norm = RMSNorm | LayerNorm


@dataclass(frozen=True)
class Attention:
    """Softmax attention with grouped key and value heads (Ainslie et al. 2023, arXiv:2305.13245)."""

    heads: int = 8
    kv_heads: int = 8
    """Key and value heads; each serves heads / kv_heads query heads. 1 is multi-query attention."""
    head: int = 64
    """Features of one head."""
    bias: Literal["none", "qkv", "all"] = "none"
    """Which projections have a bias."""
    window: int | None = None
    """A query sees itself and the window - 1 tokens before it; None is all of them."""
    softcap: float | None = None
    """Scores become softcap * tanh(scores / softcap) (Gemma 2)."""


@dataclass(frozen=True)
class Gated:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    width: int = 1376
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True)
class Plain:
    """down(activation(up(x))) (Vaswani et al. 2017)."""

    width: int = 2048
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "gelu_tanh"
    bias: Literal["none", "all"] = "none"


Mlp = Gated | Plain


@dataclass(frozen=True)
class PreNorm:
    """x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745)."""


@dataclass(frozen=True)
class PostNorm:
    """norm(x + f(x)) (Vaswani et al. 2017)."""


Wiring = PreNorm | PostNorm


@dataclass(frozen=True)
class Block:
    """One layer: attention and MLP, each with a norm of the model's kind, joined by the wiring."""

    attention: Attention = Attention()
    mlp: Mlp = Gated()
    wiring: Wiring = PreNorm()


@dataclass(frozen=True)
class Pattern:
    """Layers that differ: `prefix`, then `period` over and over, then `suffix`."""

    period: tuple[Block, ...]
    prefix: tuple[Block, ...] = ()
    suffix: tuple[Block, ...] = ()


# --- output heads ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tied:
    """Logits by the token embedding's transpose (Press and Wolf 2017, arXiv:1608.05859)."""

    softcap: float | None = None


@dataclass(frozen=True)
class Untied:
    """Logits by a matrix of their own."""

    softcap: float | None = None


Head = Tied | Untied

# --- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoder:
    """A causal language model."""

    vocab: int = 32_000
    """Rows of the embedding; at least the tokenizer's vocabulary."""
    embed: int = 512
    """Features of the residual stream."""
    layers: int = 8
    block: Block | Pattern = Block()
    position: Position = Rope()
    norm: Norm = RMSNorm()
    """Every norm of the model, and the one before the head."""
    head: Head = Tied()
    dropout: float = 0.0
    """Probability of zeroing a feature of the embedding and of each residual branch in training."""


@dataclass(frozen=True)
class Encoder:
    """A bidirectional model whose head predicts tokens in place (BERT and its family)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    block: Block | Pattern = Block(mlp=Plain(), wiring=PostNorm())
    position: Position = Learned()
    norm: Norm = LayerNorm()
    head: Head = Tied()
    dropout: float = 0.0


@dataclass(frozen=True)
class EncoderDecoder:
    """A bidirectional encoder whose memory a causal decoder attends to (T5, BART)."""

    vocab: int = 32_000
    embed: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    block: Block = Block(mlp=Plain(activation="relu"))
    position: Position = Rope()
    norm: Norm = RMSNorm()
    head: Head = Tied()
    dropout: float = 0.0


@dataclass(frozen=True)
class Rwkv4:
    """A recurrent language model with linear attention (Peng et al. 2023, arXiv:2305.13048)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    width: int = 2048
    """Features of the channel mix's hidden layer."""
    norm: LayerNorm = LayerNorm()
    head: Head = Untied()
    dropout: float = 0.0


Model = Decoder | Encoder | EncoderDecoder | Rwkv4
