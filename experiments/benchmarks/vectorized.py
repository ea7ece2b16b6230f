"""Tokens per second of eight small training runs in one program, beside the same runs in turn.

    python experiments/benchmarks/vectorized.py [--rounds 7] [--runs 8] [--devices 2] [--only 64]

Decoders of four layers with 32 to 256 features, 8 rows of 64 tokens, vocabulary 512, AdamW with clipping, float32;
the runs differ in seed (and so in their batches), learning rate and decay. "in turn" is one compiled step, taken
once for each run; the others are the one program of `jaxlm.study.together`, on one device that has all cores, or on
as many devices as there are cores; "batched" makes one batch of all runs of a device (`vmap`), else they follow
each other within the program. Each way runs in a process of its own (with the allocator settings that the command
line makes); they take turns step by step, so that a machine whose speed drifts does not favor one, and must agree
on the losses. "least ms" is the shortest of the steps (of all runs), "cpu ms" the processor time of one: together
they say how many cores were at work, and stay about the same on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

from workers import Worker, at_least, serve, spread

WIDTHS = (32, 64, 128, 256)
LAYERS, ROWS, LENGTH, VOCAB = 4, 8, 64, 512
WAYS = {
    "in turn": (False, None),
    "one device, batched": (False, True),
    "one device": (False, False),
    "devices, batched": (True, True),
    "devices": (True, False),
}
"""Whether on as many devices as there are cores, and whether batched; None is a program of one run."""


def experiments(width: int, runs: int) -> list[Any]:
    """Runs that differ in seed, learning rate and decay."""
    from jaxlm import config

    heads = max(1, width // 32)
    model = config.Decoder(
        vocab=VOCAB,
        embed=width,
        layers=LAYERS,
        block=config.Block(
            attention=config.Attention(heads=heads, kv_heads=heads, head=width // heads),
            mlp=config.Gated(width=2 * width),
        ),
    )
    return [
        config.Experiment(
            name=f"run{i}",
            model=model,
            tokenizer=config.Bytes(),
            optimizer=config.AdamW(schedule=config.Constant(peak=1e-3 * (1 + i / 8)), decay=0.1 * (1 + i / 8)),
            train=config.Train(steps=1000, batch=ROWS, length=LENGTH, seed=i),
            where=config.Where(layers="unroll"),
        )
        for i in range(runs)
    ]


def batches_of(trees: list[Any]) -> list[Any]:
    """The first batch of each run."""
    import numpy as np

    from jaxlm.data import rows
    from jaxlm.data.dataset import in_memory
    from jaxlm.train.feed import as_batch

    draw = np.random.default_rng(0)
    documents = [draw.integers(4, VOCAB, 200) for _ in range(200)]
    data = in_memory(documents, bytes=40_000, vocab=VOCAB, pad=0)
    plans = [rows.training(data, one.packing, batch=ROWS, length=LENGTH, seed=one.train.seed) for one in trees]
    return [as_batch(one.batch(0)) for one in plans]


def taken(way: str, width: int, runs: int) -> Callable[[], list[float]]:
    """A function that takes a step of every run and returns their losses."""
    import jax

    from jaxlm.study import programs
    from jaxlm.study.lanes import Lanes
    from jaxlm.study.variation import varied
    from jaxlm.train.initial import initial_states
    from jaxlm.train.setup import make_setup

    batched = WAYS[way][1]
    trees = experiments(width, runs)
    setups = [make_setup(tree, jax.devices()[:1]) for tree in trees]
    names, batches = varied(trees), batches_of(trees)
    numbers = [programs.numbers(tree, names) for tree in trees]
    states = list(initial_states(setups))
    if batched is None:
        numbers, batches = jax.device_put((numbers, batches))
        program = jax.jit(programs.step_of(setups[0]), donate_argnums=1)
        single = program.lower(numbers[0], states[0], batches[0]).compile()

        def in_turn() -> list[float]:
            losses = []
            for i in range(runs):
                states[i], metrics = single(numbers[i], states[i], batches[i])
                losses.append(metrics["loss"])
            jax.block_until_ready(states)
            return [float(loss) for loss in losses]

        return in_turn
    lanes = Lanes.of(runs, jax.devices(), batched)
    batch, box = lanes.stack(batches), [lanes.stack(states)]
    step, _ = programs.compiled_step(setups[0], lanes, lanes.stack(numbers), box[0], batch, shared=False)

    def together() -> list[float]:
        box[0], metrics = step(box[0], batch)
        jax.block_until_ready(box[0])
        return [float(one["loss"]) for one in lanes.split(metrics)]

    return together


def processor() -> float:
    """Seconds that this process has computed, on all cores."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def work(way: str, width: int, runs: int) -> None:
    """A process of one way: each turn is a step of every run."""
    start = time.perf_counter()
    take = taken(way, width, runs)
    compiling = time.perf_counter() - start

    def turn() -> dict[str, Any]:
        start, before = time.perf_counter(), processor()
        losses = take()
        return {"seconds": time.perf_counter() - start, "processor": processor() - before, "losses": losses}

    serve({"compile": compiling}, turn)


def start(way: str, width: int, runs: int, devices: int) -> Worker:
    """The process of one way."""
    from jaxlm.cli.environment import TUNABLES

    count = devices if WAYS[way][0] else 1
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count), "GLIBC_TUNABLES": TUNABLES}
    return Worker([__file__, "--work", way, str(width), str(runs)], environment)


def compare(width: int, runs: int, devices: int, rounds: int) -> list[str]:
    """A line for each way."""
    turns: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(start(way, width, runs, devices)) for way in WAYS}
        for _ in range(rounds + 2):
            for way, worker in workers.items():
                turns[way].append(worker.turn())
    for one in zip(*turns.values(), strict=True):
        for losses in zip(*(turn["losses"] for turn in one), strict=True):
            assert max(losses) - min(losses) < 1e-3 * min(losses), losses
    seconds, processors = (
        {way: [turn[name] for turn in all_turns[2:]] for way, all_turns in turns.items()}
        for name in ("seconds", "processor")
    )
    lines = []
    for way in WAYS:
        speed = runs * ROWS * LENGTH / statistics.median(seconds[way])
        ratio = spread([a / b for a, b in zip(seconds["in turn"], seconds[way], strict=True)])
        name = way.replace("devices", f"{devices} devices")
        lines.append(
            f"{width:5}  {name:20}{speed:10,.0f}   {'1' if way == 'in turn' else ratio:17}"
            f"{1e3 * min(seconds[way]):9,.0f}{1e3 * statistics.median(processors[way]):8,.0f}"
            f"{workers[way].facts['compile']:10.1f}"
        )
    return lines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=7, help="counted steps of each way, after two")
    parser.add_argument("--runs", type=at_least(1), default=8, help="runs of a program")
    parser.add_argument("--devices", type=at_least(1), default=os.cpu_count(), help="of the ways that have several")
    parser.add_argument("--only", type=int, choices=WIDTHS, help="features, for one width")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        way, width, runs = options.work
        work(way, int(width), int(runs))
        return
    print(
        f"width  {'way':20}{'tokens/s':>10}   {'x in turn (range)':17}{'least ms':>9}{'cpu ms':>8}{'compile s':>10}"
    )
    for width in WIDTHS:
        if options.only in (None, width):
            print("\n".join(compare(width, options.runs, options.devices, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
