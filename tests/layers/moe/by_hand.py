"""A mixture of experts as loops over tokens, choices and experts, in float64."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np

from jaxlm import config

SCORES = {
    "softmax": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def silu(x):
    return x / (1 + np.exp(-x))


def gated(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def scores(leaves, x, kind):
    return SCORES[kind.scores](x @ leaves["router.kernel"])


def best(values, k):
    """The k largest, of equal ones the first."""
    return sorted(range(len(values)), key=lambda expert: (-values[expert], expert))[:k]


def mixture(leaves, x, segments, kind):
    """(outputs, choices dropped): `leaves` are float64 arrays by name, `x` is [row, pos, embed]."""
    y, dropped, used = np.zeros_like(x), 0, Counter()
    for row, pos in np.ndindex(*segments.shape):
        token = x[row, pos]
        if kind.shared:
            y[row, pos] += gated(token, *(leaves[f"shared.{name}.kernel"] for name in ("gate", "up", "down")))
        if segments[row, pos] == 0:
            continue
        values = scores(leaves, token, kind)
        chosen = best(values, kind.top_k)
        total = sum(values[expert] for expert in chosen) if kind.weights == "renormalized" else 1.0
        for expert in chosen:
            if isinstance(kind.dispatch, config.Capacity):
                group = row // kind.dispatch.rows
                real = (segments[group * kind.dispatch.rows : (group + 1) * kind.dispatch.rows] > 0).sum()
                most = math.ceil(Fraction(str(kind.dispatch.factor)) * int(real) * kind.top_k / kind.experts)
                used[group, expert] += 1
                if used[group, expert] > most:
                    dropped += 1
                    continue
            kernels = (leaves[f"experts.{name}.kernel"][expert] for name in ("gate", "up", "down"))
            y[row, pos] += values[expert] / total * gated(token, *kernels)
    return y, dropped


def load_balance(leaves, x, segments, kind):
    """experts * sum of f * P, summed over documents or of the batch."""
    pieces = {}
    for row, pos in np.ndindex(*segments.shape):
        if segments[row, pos]:
            piece = (row, segments[row, pos]) if kind.balance.over == "document" else "batch"
            pieces.setdefault(piece, []).append(scores(leaves, x[row, pos], kind))
    total = 0.0
    for tokens in pieces.values():
        chosen = Counter(expert for values in tokens for expert in best(values, kind.top_k))
        for expert in range(kind.experts):
            f = chosen[expert] / (kind.top_k * len(tokens))
            total += kind.experts * f * np.mean([values[expert] / values.sum() for values in tokens])
    return total


def router_z(leaves, x, segments):
    logits = x @ leaves["router.kernel"]
    return sum(np.log(np.exp(one).sum()) ** 2 for one in logits[segments > 0])


def gap(leaves, x, segments, kind):
    """The smallest distance between the last score that is chosen and the first that is not."""
    ordered = [np.sort(scores(leaves, one, kind)) for one in x[segments > 0]]
    return min(one[-kind.top_k] - one[-kind.top_k - 1] for one in ordered)
