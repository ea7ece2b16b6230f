"""RWKV's recurrences: a training step in chunks and token by token, and what a token costs late in a text.

    python experiments/benchmarks/recurrence.py [--length 4096]

Two layers of 128 features, one row, forward and gradients on a CPU, both forms in turn: medians, and how often
faster chunks are, pair by pair. The same of the recurrences alone, of one layer. Then single tokens at positions
100 and 100,000, in turn: the cache has one size, so both cost the same. On two cores that others used too:

    4,096 tokens with gradients, ms
                          by token  in chunks       times (range)
    rwkv4   step               459        424       1.1 (1.0-1.1)
    rwkv4   recurrence          60         54       1.2 (1.0-1.6)
    rwkv5   step              2250        499       4.7 (3.7-5.2)
    rwkv5   recurrence         843        103       8.5 (7.4-9.9)
    rwkv6   step              2446        529       4.6 (4.1-5.7)
    rwkv6   recurrence        1109        110     10.0 (7.8-10.8)
    rwkv7   step              4139        756       6.0 (4.6-7.5)
    rwkv7   recurrence        1714        179      9.3 (7.8-10.8)

RWKV-4's state is three numbers a feature and no matrix: the recurrences of both layers are a quarter of its step.
They take 4 exponentials a token and feature one by one, and 6 in chunks, which save only steps one after the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlm import config
from jaxlm.layers.contracts import Batch, Call, Tokens
from jaxlm.layers.wkv import WkvState, wkv4, wkv6, wkv7
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
FORMS = ("scan", "chunked")
HEAD = 64
"""Features of a head."""
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


def training(model: object, length: int, form: str) -> Callable[[], object]:
    """A run of the loss and its gradients, compiled."""
    objective, call = Prediction(), dataclasses.replace(CALL, recurrence=form)
    tokens = inputs(length)
    targets = jnp.roll(tokens.ids, -1, axis=1)
    batch = Batch(tokens, targets, jnp.ones(targets.shape), jnp.arange(1), tokens.segments)

    @jax.jit
    def step(model: object) -> tuple:
        return jax.value_and_grad(lambda m: objective.totals(m, batch, None, call, {})[0]["cross_entropy"])(model)

    return lambda: step(model)


def alone(name: str, length: int, form: str) -> Callable[[], object]:
    """A run of one layer's recurrence and its gradients, compiled."""
    heads, head = SIZES["embed"] // HEAD, HEAD
    x = jax.random.normal(jax.random.key(2), (6, 1, length, heads, head))
    decay = -jax.nn.softplus(x[3])
    starts, padding = jnp.arange(length)[None] == 0, jnp.zeros((1, length), bool)
    state = jnp.zeros((1, heads, head, head))
    match name:
        case "rwkv4":
            key, value = (one.reshape(1, length, -1) for one in x[:2])
            fixed = (jnp.ones(SIZES["embed"]), jnp.ones(SIZES["embed"]), key, value)
            state, run = WkvState.empty(1, SIZES["embed"]), wkv4
        case "rwkv5" | "rwkv6":
            fixed, run = (*x[:3], decay, jnp.ones((heads, head))), wkv6
        case "rwkv7":
            removal = x[4] / jnp.linalg.norm(x[4], axis=-1, keepdims=True)
            fixed, run = (*x[:3], decay, removal, jax.nn.sigmoid(x[5])), wkv7

    @jax.jit
    def step(arguments: tuple) -> tuple:
        return jax.value_and_grad(lambda a: jnp.sum(run(*a, starts, padding, state, form)[0]))(arguments)

    return lambda: step(fixed)


def compared(runs: dict[str, Callable[[], object]], times: int) -> tuple[float, float, list[float]]:
    """Median milliseconds of both forms, and the sorted ratios of runs that followed each other."""
    for run in runs.values():
        timed(run)
    found = [tuple(timed(run) for run in runs.values()) for _ in range(times)]
    slow, fast = (statistics.median(one) for one in zip(*found, strict=True))
    return slow, fast, sorted(a / b for a, b in found)


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
    print(f"{asked.length:,} tokens with gradients, ms")
    print(f"{'':<8}{'':<12}{'by token':>10}{'in chunks':>11}{'times (range)':>20}")
    for name in asked.models:
        model = jax.jit(lambda name=name: build(MODELS[name], jax.random.key(0)))()
        of = {"step": functools.partial(training, model), "recurrence": functools.partial(alone, name)}
        for what, run in of.items():
            slow, fast, ratios = compared({form: run(asked.length, form) for form in FORMS}, asked.steps)
            times = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})"
            print(f"{name:<8}{what:<12}{slow:>10.0f}{fast:>11.0f}{times:>20}", flush=True)
    print(f"a token after {EARLY:,} and {LATE:,} others, ms")
    for name in asked.models:
        early, late = decoding(jax.jit(lambda name=name: build(MODELS[name], jax.random.key(0)))())
        print(f"{name:<8}{early:>10.3f}{late:>11.3f}{late / early:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
