"""How text is drawn from a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """One request for text; the fields' defaults draw from the model's own distribution."""

    tokens: int = 100
    """Most tokens to draw."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """Keep the k likeliest tokens."""
    top_p: float | None = None
    """Keep the fewest tokens that hold this much probability (arXiv:1904.09751)."""
    min_p: float | None = None
    """Keep tokens at least this probable relative to the likeliest (arXiv:2407.01082)."""
    seed: int = 0
    samples: int = 1
