"""Recurrent language models: RWKV in its four published versions."""

from __future__ import annotations

from dataclasses import dataclass

from jaxlm.config.block import LayerNorm
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Head, Untied


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


@dataclass(frozen=True)
class Rwkv5:
    """Eagle: heads whose states are matrices, and a gate (Peng et al. 2024, arXiv:2404.05892)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    head_size: int = 64
    """Features of a head."""
    width: int = 1792
    """Features of the channel mix's hidden layer."""
    norm: LayerNorm = LayerNorm()
    head: Head = Untied()
    dropout: float = 0.0


@dataclass(frozen=True)
class Rwkv6:
    """Finch: Eagle with token shifts and decays that depend on the tokens (the same paper)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    head_size: int = 64
    """Features of a head."""
    width: int = 1792
    """Features of the channel mix's hidden layer."""
    mix_rank: int = 32
    """Rank of what the tokens add to each of the five token shifts."""
    decay_rank: int = 64
    """Rank of what the tokens add to the decays."""
    norm: LayerNorm = LayerNorm()
    head: Head = Untied()
    dropout: float = 0.0


@dataclass(frozen=True)
class Rwkv7:
    """Goose: heads whose states follow a generalized delta rule (Peng et al. 2025, arXiv:2503.14456)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    head_size: int = 64
    """Features of a head."""
    width: int = 2048
    """Features of the channel mix's hidden layer."""
    decay_rank: int = 64
    """Rank of what the tokens add to the decays."""
    rate_rank: int = 64
    """Rank of what they add to the in-context learning rates."""
    value_rank: int = 32
    """Rank of what they add to the first layer's share in the values of the others."""
    gate_rank: int = 128
    """Rank of the gates."""
    removal: float = 1.0
    """Times what a token takes out of the state; with 2 a state can change its sign and back, which tracking states
    in one layer needs (Grazzi et al. 2024, arXiv:2411.12537).
    """
    norm: LayerNorm = LayerNorm()
    head: Head = Untied()
    dropout: float = 0.0


Recurrent = Rwkv4 | Rwkv5 | Rwkv6 | Rwkv7


def head_count(model: Rwkv5 | Rwkv6 | Rwkv7) -> int:
    """Number of heads. Raises UsageError where they do not fill the features."""
    if model.head_size < 1 or model.embed % model.head_size:
        raise UsageError(
            f"model.embed is {model.embed}: heads of model.head_size = {model.head_size} do not fill it"
        )
    return model.embed // model.head_size
