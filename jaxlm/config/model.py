"""What a model is made of.

Every variant is a small frozen dataclass in a union; no boolean selects an architecture. The rooms that build
from these (`layers`, `models`) do so by one `match` each.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxlm.config.block import Block, LayerNorm, Norm, Pattern, Plain, PostNorm, RMSNorm
from jaxlm.config.head import Head, Tied
from jaxlm.config.head import Untied as Untied
from jaxlm.config.position import Learned, Position, Rope
from jaxlm.config.recurrent import Recurrent

# --- token embeddings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unchanged:
    """Token vectors as they are looked up."""


@dataclass(frozen=True)
class Scaled:
    """Token vectors times sqrt(embed), before positions are added (Vaswani et al. 2017, section 3.4; Gemma)."""


@dataclass(frozen=True)
class Normed:
    """Normalized by the model's kind of norm, after positions are added (BLOOM, arXiv:2211.05100, section 3.2)."""


Embedding = Unchanged | Scaled | Normed

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
    embedding: Embedding = Unchanged()
    """What becomes of token vectors on their way into the first layer."""


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


Model = Decoder | Encoder | EncoderDecoder | Recurrent
