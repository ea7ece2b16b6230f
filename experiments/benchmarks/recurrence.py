"""RWKV's recurrences: a training step in chunks and token by token, and what a token costs late in a text.

    python experiments/benchmarks/recurrence.py [--length 4096]

Two layers of 128 features, one row, forward and gradients on a CPU: the median of some steps in each form. Then
single tokens at positions 100 and 100,000, one after the other in turn: the cache has one size, so both cost the
same.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlm import config
from jaxlm.layers.contracts import Batch, Call, Tokens
from jaxlm.models import build
from jaxlm.objectives.prediction import Prediction
from jaxlm.parallel.layout import single_device

SIZES = {"vocab": 512, "embed": 128, "layers": 2}
MODELS = {
    "rwkv4": config.Rwkv4(**SIZES, width=512),
    "rwkv5": config.Rwkv5(**SIZES, width=448),
    "rwkv6": config.Rwkv6(**SIZES, width=448),
    "rwkv7": config.Rwkv7(**SIZES, width=512),
}
CALL = Call(single_device(), layers="unroll")
EARLY, LATE = 100, 100_000
CHUNK, TOKENS = 512, 400


def timed(run: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    jax.block_until_ready(run())
    return 1e3 * (time.perf_counter() - began)


def inputs(length: int) -> Tokens:
    """One document."""
    ids = jax.random.randint(jax.random.key(1), (1, length), 0, SIZES["vocab"])
    return Tokens(ids, jnp.ones_like(ids), jnp.arange(length)[None])


def training(model: object, length: int, form: str, steps: int) -> float:
    """Median milliseconds of the loss and its gradients."""
    objective, call = Prediction(), dataclasses.replace(CALL, recurrence=form)
    tokens = inputs(length)
    targets = jnp.roll(tokens.ids, -1, axis=1)
    batch = Batch(tokens, targets, jnp.ones(targets.shape), jnp.arange(1), tokens.segments)

    @jax.jit
    def step(model: object) -> tuple:
        return jax.value_and_grad(lambda m: objective.totals(m, batch, None, call, {})[0]["cross_entropy"])(model)

    timed(lambda: step(model))
    return statistics.median(timed(lambda: step(model)) for _ in range(steps))


def decoding(model: object) -> tuple[float, float]:
    """Median milliseconds of a token after EARLY and after LATE others."""
    read = jax.jit(lambda model, tokens, cache: model(tokens, CALL, cache=cache).cache)

    def after(count: int) -> object:
        cache = model.empty_cache(1, LATE, CALL)
        for begin in range(0, count, CHUNK):
            cache = read(model, inputs(min(CHUNK, count - begin)), cache)
        return cache

    @jax.jit
    def step(model: object, cache: object) -> tuple:
        output = model(inputs(1), CALL, cache=cache)
        return model.logits(output.hidden, CALL), output.cache

    flat = dataclasses.replace(model, blocks=model.blocks.unstacked())
    caches = {count: after(count) for count in (EARLY, LATE)}
    found: dict[int, list[float]] = {count: [] for count in caches}
    for _ in range(TOKENS):
        for count, cache in caches.items():
            found[count].append(timed(lambda cache=cache: step(flat, cache)))
    return tuple(statistics.median(times) for times in found.values())


def main() -> None:
    """Prints a line for each version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    asked = parser.parse_args()
    print(f"{'':<8}{f'training step of {asked.length:,} tokens, ms':>44}{'a token, ms, after':>28}")
    print(f"{'':<8}{'by token':>14}{'in chunks':>14}{'times':>16}{EARLY:>14,}{LATE:>14,}{'ratio':>8}")
    for name in asked.models:
        model = jax.jit(lambda name=name: build(MODELS[name], jax.random.key(0)))()
        slow, fast = (training(model, asked.length, form, asked.steps) for form in ("scan", "chunked"))
        early, late = decoding(model)
        print(
            f"{name:<8}{slow:>14.0f}{fast:>14.0f}{slow / fast:>16.1f}{early:>14.3f}{late:>14.3f}"
            f"{late / early:>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
