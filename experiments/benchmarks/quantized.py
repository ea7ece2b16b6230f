"""Decoding by weights in few bits beside float32, all forms in one process, taking turns.

    python experiments/benchmarks/quantized.py [--batch 1 4] [--tokens 32] [--rounds 5] [--forms int8 int4 ...]

The model is of SmolLM2-135M's shape (arXiv:2502.02737: 30 layers of 576 features, 9 heads of 64 and 3 of keys and
values, 1536 features between, 49,152 tokens, the head tied), its weights drawn: the numbers in it change nothing
here. Each form draws the same number of tokens from a cache of 256, its layers unstacked and its cache given up to
every step, as `sampling.loop` has them. Rounds take turns, and what is printed is the median over rounds of each
form's time and of its ratio to float32 in the same round, and the form's share of float32's bytes.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm import config
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models import build
from jaxlm.parallel.layout import single_device
from jaxlm.quantize.build import quantized
from jaxlm.sampling.loop import unstacked

MODEL = config.Decoder(
    vocab=49_152,
    embed=576,
    layers=30,
    block=config.Block(config.Attention(heads=9, kv_heads=3, head=64), config.Gated(1536)),
    position=config.Rope(theta=100_000.0),
    head=config.Tied(),
)
LENGTH = 256
"""Slots of the cache."""


def every(format: config.quantization.Format, *more: config.Rule, **rest: Any) -> config.Rounded:
    """The blocks in this format, the rest by other rules."""
    return config.Rounded((config.Rule(format=format), *more), **rest)


TABLE = config.Rule("^embedding$", config.Integers(8))
FORMS = {
    "float32": config.NoQuantization(),
    "int8": every(config.Integers(8)),
    "int8-all": every(config.Integers(8), TABLE),
    "int8-dynamic": every(config.Integers(8), activations=config.Dynamic()),
    "int8-all-dynamic": every(config.Integers(8), TABLE, activations=config.Dynamic()),
    "int8-cache": every(config.Integers(8), cache="int8"),
    "int8-group64": every(config.Integers(8, group=64)),
    "int4": every(config.Integers(4)),
    "int4-group32": every(config.Integers(4, symmetric=False, group=32)),
    "nf4": every(config.Nf4()),
    "fp8": every(config.Fp8()),
}


@functools.partial(jax.jit, static_argnames=("call", "count"), donate_argnames="state")
def decode(model: Any, state: Any, *, call: Call, count: int) -> Any:
    """`count` tokens more, each the likeliest."""

    def step(_: int, state: Any) -> Any:
        tokens, cache = state
        output = model(tokens, call, cache=cache)
        ids = jnp.argmax(model.logits(output.hidden[:, 0], call), axis=-1).astype(jnp.int32)
        return Tokens(ids[:, None], tokens.segments, tokens.positions + 1), output.cache

    return jax.lax.fori_loop(0, count, step, state)


def begin(model: Any, batch: int, call: Call) -> Any:
    """An empty cache and the first token of each row."""
    ones = jnp.ones((batch, 1), jnp.int32)
    return Tokens(ones, jnp.ones_like(ones), jnp.zeros_like(ones)), model.empty_cache(batch, LENGTH, call)


def size(model: Any) -> int:
    """Bytes of its parameters."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model))


def main() -> None:
    """Prints a line for each batch and form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    call = Call(single_device(), mode="decode")
    plain = jax.jit(lambda: build(MODEL, jax.random.key(0)))()
    names = ["float32", *(name for name in options.forms if name != "float32")]
    models = {name: unstacked(quantized(plain, FORMS[name])) for name in names}
    whole = size(models["float32"])
    for batch in options.batch:
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(options.rounds + 1):
            for name, model in models.items():
                state = jax.block_until_ready(begin(model, batch, call))
                start = time.perf_counter()
                jax.block_until_ready(decode(model, state, call=call, count=options.tokens))
                if turn:  # the first compiles
                    times[name].append((time.perf_counter() - start) / options.tokens)
        for name in names:
            ratios = [a / b for a, b in zip(times["float32"], times[name], strict=True)]
            print(
                f"batch {batch}  {name:16} {1e3 * statistics.median(times[name]):7.1f} ms a token   "
                f"{statistics.median(ratios):5.2f} x float32 ({min(ratios):.2f} to {max(ratios):.2f})   "
                f"{size(models[name]) / whole:.3f} of its bytes",
                flush=True,
            )


if __name__ == "__main__":
    main()
