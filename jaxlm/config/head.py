"""Output heads: from hidden states to scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tied:
    """Logits by the token embedding's transpose (Press and Wolf 2017, arXiv:1608.05859)."""

    softcap: float | None = None


@dataclass(frozen=True)
class Untied:
    """Logits by a matrix of their own."""

    softcap: float | None = None
    bias: Literal["none", "all"] = "none"


Head = Tied | Untied
