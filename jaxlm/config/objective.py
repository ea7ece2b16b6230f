"""What a model is trained to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Autoregressive:
    """Next-token cross-entropy, computed in chunks of positions so that logits never exist whole."""

    z_loss: float = 0.0
    """Coefficient of mean(logsumexp(logits) ** 2) (PaLM, arXiv:2204.02311 section 5)."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class Custom:
    """An objective of your own: `package.module:name`; its source is part of the experiment's hash."""

    path: str = ""


Objective = Autoregressive | Custom
