"""Chinchilla's first approach: which training curve is the lowest at each number of FLOPs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.study.laws.form import Frontier, Power
from jaxlm.study.laws.points import Points
from jaxlm.study.laws.projection import saturating

PLACES = 300
"""Numbers of FLOPs, evenly spaced in their logarithm, at which curves are compared."""


def fit(curves: Sequence[Points], start: Frontier | None = None) -> Frontier:
    """Powers through the models on the envelope (Hoffmann et al. 2022, section 3.1); `start` is not needed.

    A curve is one run in training, its loss made to fall: noise does not raise it. Where the best model is the
    smallest or the largest there is, a better one may lie beyond: those places are left out. The answer is only as
    fine as the ladder of sizes, and the curve of a schedule that has not decayed yet lies above what the model
    could reach: give runs of several lengths. Raises UsageError with fewer than 3 sizes on the envelope.
    """
    flops, parameters, tokens, losses = envelope(curves)
    sizes = np.unique(parameters)
    if len(sizes) < 3:
        raise UsageError(
            f"{len(sizes)} sizes between the smallest and the largest are the best at some number of FLOPs, and 3 "
            "are needed: train more sizes, or longer"
        )
    return Frontier(Power.through(flops, parameters), Power.through(flops, tokens), *saturating(flops, losses))


def envelope(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """FLOPs, and the parameters, tokens and loss of the best model there."""
    curves = [curve[np.argsort(curve.flops)] for curve in curves if len(curve) > 1]
    if not curves:
        raise UsageError("no run has several losses in training: an envelope needs whole curves")
    places = np.linspace(
        np.log(min(curve.flops[0] for curve in curves)), np.log(max(curve.flops[-1] for curve in curves)), PLACES
    )
    losses = np.full((len(curves), PLACES), np.inf)
    tokens = np.zeros((len(curves), PLACES))
    for i, curve in enumerate(curves):
        logs = np.log(curve.flops)
        within = (places >= logs[0]) & (places <= logs[-1])
        falling = np.log(np.minimum.accumulate(curve.losses))
        losses[i, within] = np.exp(np.interp(places[within], logs, falling))
        tokens[i, within] = np.exp(np.interp(places[within], logs, np.log(curve.tokens)))
    best = np.argmin(losses, axis=0)
    sizes = np.array([curve.parameters[0] for curve in curves])
    inner = (sizes[best] > sizes.min()) & (sizes[best] < sizes.max()) & np.isfinite(losses.min(axis=0))
    at = np.flatnonzero(inner)
    return np.exp(places[at]), sizes[best[at]], tokens[best[at], at], losses[best[at], at]
