"""What scaling laws are fitted to: parameters, tokens, FLOPs and loss of runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxlm.config.errors import UsageError

Runs = Float[np.ndarray, "run"]
WITHIN = 1.25
"""Runs of one budget have at most so many times the FLOPs of its smallest run."""


@dataclass(frozen=True)
class Cost:
    """Training FLOPs of N parameters on D tokens: coefficient * N^exponent * D (6 N D by rule of thumb)."""

    coefficient: float = 6.0
    exponent: float = 1.0

    def flops(self, parameters: Runs, tokens: Runs) -> Runs:
        """C of N and D."""
        return self.coefficient * parameters**self.exponent * tokens

    def tokens(self, flops: Runs, parameters: Runs) -> Runs:
        """D that a budget pays for."""
        return flops / (self.coefficient * parameters**self.exponent)


@dataclass(frozen=True)
class Points:
    """One point a run, at its end, or several of a run in training.

    Raises UsageError for numbers that are not finite and positive.
    """

    parameters: Runs
    tokens: Runs
    flops: Runs
    losses: Runs
    """In any unit whose floor is at least 0, such as nats a token."""

    def __post_init__(self) -> None:
        for name in ("parameters", "tokens", "flops", "losses"):
            values = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, values)
            if bad := np.flatnonzero(~(np.isfinite(values) & (values > 0))).tolist():
                raise UsageError(f"{name}: point {bad[0] + 1} is {values[bad[0]]:.4g}, which is no positive number")

    def __len__(self) -> int:
        return len(self.losses)

    def __getitem__(self, chosen: Int[np.ndarray, "chosen"] | np.ndarray | slice) -> Points:
        """Some of them, or some of them several times."""
        return Points(self.parameters[chosen], self.tokens[chosen], self.flops[chosen], self.losses[chosen])

    def sizes(self) -> int:
        """How many numbers of parameters there are."""
        return len(np.unique(self.parameters))

    def cost(self) -> Cost:
        """FLOPs by parameters and tokens, a line through log(C / D) over log N.

        It is fitted because 6 N D is not what a model takes: attention grows with the row, and a lookup is free.
        """
        each = np.log(self.flops / self.tokens)
        if self.sizes() == 1:
            return Cost(float(np.exp(np.mean(each)) / self.parameters[0]))
        exponent, constant = np.polyfit(np.log(self.parameters), each, 1)
        return Cost(float(np.exp(constant)), float(exponent))

    def budgets(self) -> Int[np.ndarray, "run"]:
        """The number of each run's budget, counted from the smallest: a run beyond `WITHIN` begins another.

        By the first of a budget and not by its neighbor, so that a ladder of FLOPs in small steps is no one budget.
        """
        numbers = np.empty(len(self), np.int64)
        number, first = -1, 0.0
        for run in np.argsort(self.flops, kind="stable"):
            if self.flops[run] > WITHIN * first:
                number, first = number + 1, self.flops[run]
            numbers[run] = number
        return numbers


def join(parts: list[Points]) -> Points:
    """All points of several."""
    names = ("parameters", "tokens", "flops", "losses")
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def enough(points: Points, least: int = 6) -> None:
    """Raises UsageError for points that E + A / N^alpha + B / D^beta cannot be told from."""
    for values, name in ((points.parameters, "size"), (points.tokens, "number of tokens")):
        if len(np.unique(values)) == 1:
            raise UsageError(f"all runs have one {name}, {values[0]:.4g}: a law needs several")
    if len(points) < least:
        raise UsageError(f"a law of 5 numbers needs at least {least} runs, and there are {len(points)}")
    if points.sizes() < 3 or len(np.unique(points.tokens)) < 3:
        raise UsageError("a law needs at least 3 sizes and 3 numbers of tokens")


def no_law(name: str, how: str = "do not fall") -> UsageError:
    """Of a fit whose term of parameters or tokens is none."""
    return UsageError(f"losses {how} with {name} in these runs: no law can be told from them")
