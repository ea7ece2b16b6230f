"""Does a learning rate that is best for a narrow model stay best for wide ones, by muP and without?

    python experiments/benchmarks/mup.py

Prints the coordinate check (slopes of log mean |activation| against log width, of widths 64 to 512 over four steps:
0 by muP, above 0.3 somewhere by the standard parametrization), then losses of a sweep of learning rates at three
widths. The models, of one or two layers, learn a language in which a token follows from the two before it. Ten
minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm import config
from jaxlm.cli.text import table
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.study.coordinates import sizes, slopes
from jaxlm.study.ladder import widened
from jaxlm.study.rates import sweep

VOCAB, ROWS, LENGTH = 16, 8, 16
RATES = tuple(2.0**power for power in range(-11, -3))
PARAMETRIZATIONS = {"mup": config.MuP(embed=64, head=16), "standard": config.Standard()}


def model(width: int, parametrization: config.parametrization.Parametrization, layers: int = 1) -> config.Decoder:
    """A decoder with heads of 16 features."""
    block = config.Block(config.Attention(heads=4, kv_heads=4, head=16), config.Gated(128))
    base = config.Decoder(vocab=VOCAB, embed=64, layers=layers, block=block)
    return dataclasses.replace(widened(base, width), parametrization=parametrization)


def adam(rate: float) -> config.AdamW:
    """Adam at one rate, without decay."""
    return config.AdamW(config.Constant(rate), decay=0.0)


def batch(step: Array) -> Batch:
    """Rows in which a token follows from the two before it, by a table drawn once."""
    after = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (VOCAB, VOCAB)), jnp.int32)
    first = jax.random.randint(jax.random.fold_in(jax.random.key(1), step), (2, ROWS), 0, VOCAB)

    def follow(before: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        return (before[1], after[before]), before[0]

    ids = jax.lax.scan(follow, (first[0], first[1]), None, length=LENGTH + 1)[1].T
    ones = jnp.ones((ROWS, LENGTH), jnp.int32)
    places = jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH))
    return Batch(
        inputs=Tokens(ids[:, :-1], ones, places),
        source=None,
        targets=ids[:, 1:],
        weights=ones.astype(jnp.float32),
        rows=jnp.arange(ROWS),
        documents=ones,
        extra={},
    )


def coordinates(widths: tuple[int, ...], layers: int, rate: float, seeds: int) -> str:
    """A row of slopes for each tap and parametrization, steps from left to right."""
    rows = []
    for name, kind in PARAMETRIZATIONS.items():
        found = {
            width: sizes(model(width, kind, layers), adam(rate), batch(jnp.zeros((), jnp.int32)), seeds=seeds)
            for width in widths
        }
        rows += [
            (name, tap, *[""] * (5 - len(values)), *[f"{value:+.2f}" for value in values])
            for tap, values in slopes(found).items()
        ]
    header = ("slopes", "tap", "start", *(f"step {i}" for i in range(1, 5)))
    return table(header, rows)


def transfer(widths: tuple[int, ...], steps: int, seeds: int) -> tuple[str, dict[str, list[int]]]:
    """Losses by rate and width, and the number of the best rate at each width."""
    rows, best = [], {}
    for name, kind in PARAMETRIZATIONS.items():
        best[name] = []
        for width in widths:
            losses = sweep(model(width, kind), adam, batch, RATES, steps, seeds)
            at = int(np.argmin(losses))
            best[name].append(at)
            rows.append((name, width, *(f"{loss:.3f}" + "*" * (i == at) for i, loss in enumerate(losses))))
    return table(("loss", "width", *(f"{rate:.2g}" for rate in RATES)), rows), best


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    print(coordinates((64, 128, 256, 512), 2, 3e-3, 4) + "\n", flush=True)
    shown, best = transfer((64, 128, 256), options.steps, options.seeds)
    print(shown)
    moved = ", ".join(f"{name} {max(found) - min(found)} steps of 2" for name, found in best.items())
    print(f"the best rate (*) moves by: {moved}")


if __name__ == "__main__":
    main()
