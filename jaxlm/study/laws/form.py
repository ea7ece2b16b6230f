"""What fits return: the law of losses, or the frontier of compute-optimal models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxlm.study.laws.points import Cost, Runs

Values = Float[np.ndarray, "..."]


class Exponents(NamedTuple):
    """N_opt ~ C^a and D_opt ~ C^b."""

    a: float
    b: float


class Optimum(NamedTuple):
    """The best model that a budget pays for, and its loss."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, arXiv:2203.15556, equation 2)."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    cost: Cost = Cost()

    def loss(self, parameters: Values, tokens: Values) -> Values:
        """The loss after training."""
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    @property
    def exponents(self) -> Exponents:
        """Where the loss on a budget is least (equation 4 for a cost of 6 N D): see `optimum`."""
        power = self.cost.exponent
        share = self.alpha + power * self.beta
        return Exponents(self.beta / share, self.alpha / share)

    def optimum(self, flops: float) -> Optimum:
        """Of the loss along C = c N^p D: N^(alpha + p beta) = alpha A / (p beta B) * (C / c)^beta."""
        power = self.cost.exponent
        ratio = self.alpha * self.A / (power * self.beta * self.B)
        log = np.log(ratio) + self.beta * np.log(flops / self.cost.coefficient)
        # Of exponents near 0 it may lie beyond all numbers, at 0 or infinity.
        with np.errstate(over="ignore", divide="ignore"):
            parameters = np.exp(log / (self.alpha + power * self.beta))
            tokens = self.cost.tokens(flops, parameters)
            return Optimum(float(parameters), float(tokens), float(self.loss(parameters, tokens)))


PUBLISHED = Law(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
"""Of Hoffmann et al. 2022, section 3.3; Besiroglu et al. (arXiv:2404.10102) fit the same runs otherwise."""


@dataclass(frozen=True)
class Power:
    """coefficient * C^exponent."""

    coefficient: float
    exponent: float

    @classmethod
    def through(cls, flops: Runs, values: Runs) -> Power:
        """The line through their logarithms."""
        exponent, constant = np.polyfit(np.log(flops), np.log(values), 1)
        return cls(float(np.exp(constant)), float(exponent))

    def __call__(self, flops: Values) -> Values:
        return self.coefficient * flops**self.exponent


@dataclass(frozen=True)
class Frontier:
    """Compute-optimal models by their budget, each a power of its own; the loss is E + K / C^gamma."""

    parameters: Power
    tokens: Power
    E: float
    K: float
    gamma: float

    @property
    def exponents(self) -> Exponents:
        """As fitted: a + b is 1 only where FLOPs are N D times a constant."""
        return Exponents(self.parameters.exponent, self.tokens.exponent)

    def optimum(self, flops: float) -> Optimum:
        """N, D and loss of a budget."""
        loss = self.E + self.K * flops**-self.gamma
        return Optimum(float(self.parameters(flops)), float(self.tokens(flops)), float(loss))


Fit = Law | Frontier
