"""What divides what, for messages that say what to do."""

from __future__ import annotations


def nearest_multiples(count: int, unit: int) -> str:
    """The multiples of `unit` next to `count`: "8 or 16"; one where it is a multiple or the lower one is 0."""
    return " or ".join(str(n) for n in dict.fromkeys((count // unit * unit, -(-count // unit) * unit)) if n)


def divisors(count: int) -> list[int]:
    """All of them, smallest first."""
    return [n for n in range(1, count + 1) if count % n == 0]
