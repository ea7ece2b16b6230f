"""Optimizers and learning-rate schedules.

Steps count from 0; a decay is complete at step `train.steps`, one after the last update.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then the peak for ever."""

    peak: float = 1e-3
    warmup: int = 0


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine from the peak to `final` * peak at the end."""

    peak: float = 1e-3
    warmup: int = 0
    final: float = 0.1


@dataclass(frozen=True)
class Linear:
    """Linear warm-up, then a line from the peak to `final` * peak at the end."""

    peak: float = 1e-3
    warmup: int = 0
    final: float = 0.0


@dataclass(frozen=True)
class WarmupStableDecay:
    """Linear warm-up, the peak, then a line to `final` * peak in the last `decay` (arXiv:2404.06395)."""

    peak: float = 1e-3
    warmup: int = 0
    decay: int = 100
    final: float = 0.0


Schedule = Constant | Cosine | Linear | WarmupStableDecay


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    schedule: Schedule = Cosine()
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    decay: float = 0.1
    """Applied to matrices (kernels and embeddings), not to norms and biases; times the learning rate."""


@dataclass(frozen=True)
class Adafactor:
    """Factored second moments (Shazeer and Stern 2018, arXiv:1804.04235).

    The learning rate is relative: it multiplies each array's root mean square.
    """

    schedule: Schedule = Cosine()
    b2: float = 0.8
    """Exponent of the second moment's decay rate, 1 - step ** -b2."""
    decay: float = 0.0
    """As in AdamW."""


@dataclass(frozen=True)
class Lion:
    """Sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675)."""

    schedule: Schedule = Cosine(peak=1e-4)
    b1: float = 0.9
    b2: float = 0.99
    decay: float = 0.1


@dataclass(frozen=True)
class Muon:
    """Orthogonalized momentum for the blocks' matrices, AdamW for the rest (Jordan et al. 2024)."""

    schedule: Schedule = Cosine(peak=2e-2)
    momentum: float = 0.95
    iterations: int = 5
    """Newton-Schulz iterations."""
    decay: float = 0.1
    """Applied to the orthogonalized matrices; the AdamW part does not decay."""
    adam: float = 0.1
    """Learning rate of the AdamW part, as a share of the schedule's."""


Optimizer = AdamW | Adafactor | Lion | Muon
