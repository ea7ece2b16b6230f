"""Weak and strong scaling of a training step: over CPU devices, over processes, and over chips by closed forms.

    python experiments/benchmarks/scaling.py [devices processes plan] [--rounds 5]

`devices`: 1 to 8 CPU devices of one process; `processes`: 1 to 4 processes of one device each, which meet on this
machine's loopback and sum by Gloo. One device uses all of this machine's cores already, and all devices share them:
what can be seen is overhead, as tokens/s beside those of one device for the same rows, never what devices of their
own would gain; a share above 1 says that one device leaves cores idle. The two take turns step by step. Weak
scaling gives --rows to each device; strong scaling shares the rows of the largest weak one. `data` repeats
parameters, `fsdp` shards them. Losses must agree.

`plan`: LLaMA 2 7B on v5p chips, for each number of chips the best mesh, micro-batches and rematerialization of the
closed form that `jaxlm plan --search` ranks by. It ranks; it predicts nothing: nothing is compiled, products reach
a stated share of peak, links are those of one torus whatever its size, and latency and stragglers are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers import Worker, at_least, serve, spread

LLAMA = str(Path(__file__).parents[1] / "pretrain" / "llama2_7b.py")
EMBED, HEADS, WIDTH, VOCAB, LENGTH = 256, 4, 704, 512, 256
DEVICES = {"devices": (2, 4, 8), "processes": (2, 4)}
"""Part -> how many share the rows, beside one."""
MESHES = ("data", "fsdp")
TOLERANCE = 2e-6
"""Of a loss, relative: sums over devices are taken in another order."""
CHIPS = (1, 8, 64, 512, 4096)
WEAK_ROWS, STRONG_ROWS = 4, 1024
"""Rows of 4096 tokens: a chip's, as the experiment has it on 64 chips, and a step's, as the paper has it."""


# --- one arm: a step on a mesh -----------------------------------------------------------------------------------


def prepare(mesh: str, rows: int, layers: int) -> tuple[dict[str, float], Callable[[], dict[str, float]]]:
    """The step on all devices of all processes: (seconds to compile, one turn, which is a step)."""
    import jax
    import numpy as np

    from jaxlm import config
    from jaxlm.cluster import together
    from jaxlm.layers.contracts import Batch, Tokens
    from jaxlm.train.initial import initial_state
    from jaxlm.train.setup import make_setup
    from jaxlm.train.step import make_step

    block = config.Block(config.Attention(heads=HEADS, kv_heads=HEADS, head=EMBED // HEADS), config.Gated(WIDTH))
    axes = config.Mesh(**{mesh: jax.device_count()})
    setup = make_setup(
        config.Experiment(
            name="scaling",
            model=config.Decoder(vocab=VOCAB, embed=EMBED, layers=layers, block=block),
            train=config.Train(steps=1000, batch=rows, length=LENGTH),
            where=config.Where(mesh=axes, layers="unroll"),
        )
    )
    ids = np.random.default_rng(0).integers(0, VOCAB, (rows, LENGTH + 1)).astype(np.int32)

    def put(x: np.ndarray) -> jax.Array:
        sharding = setup.call.layout.sharding(("row", "pos")[: x.ndim], x.shape)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    ones, places = np.ones((rows, LENGTH), np.int32), np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1))
    tokens = Tokens(put(ids[:, :-1]), put(ones), put(places))
    numbers = put(np.arange(rows, dtype=np.int32))
    batch = Batch(tokens, put(ids[:, 1:]), put(ones.astype(np.float32)), numbers, put(ones))
    step = make_step(setup.objective, setup.optimizer, setup.call, seed=0, clip=1.0)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)).lower(setup.abstract, batch)
    compiled = together.compiled(lowered)
    facts = {"compile": time.perf_counter() - start}
    state = initial_state(setup)

    def turn() -> dict[str, float]:
        nonlocal state
        start = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(state)
        return {"seconds": time.perf_counter() - start, "loss": float(metrics["loss"])}

    return facts, turn


def work(mesh: str, rows: int, layers: int) -> None:
    """One process of an arm."""
    from jaxlm.cluster.discovery import join
    from jaxlm.cluster.together import leaving

    join()
    with leaving():
        serve(*prepare(mesh, rows, layers))


def start(mesh: str, rows: int, layers: int, devices: int = 1, processes: int = 1) -> Worker:
    """The processes of one arm, each with as many devices."""
    from jaxlm.cli.environment import TUNABLES

    given = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "GLIBC_TUNABLES": TUNABLES}
    environments = [given]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        shared = given | {"JAXLM_COORDINATOR": coordinator, "JAXLM_NUM_PROCESSES": str(processes)}
        environments = [shared | {"JAXLM_PROCESS_ID": str(index)} for index in range(processes)]
    return Worker([__file__, "--work", mesh, str(rows), str(layers)], *environments)


# --- devices and processes of this machine -----------------------------------------------------------------------


def cases(counts: tuple[int, ...], rows: int) -> dict[int, list[tuple[str, int]]]:
    """Rows of a step -> the arms that take them: (which scaling, how many share the rows); `counts` go up.

    Strong scaling has the rows that the most devices have in weak scaling: there, the two are one.
    """
    *fewer, most = counts
    found = {rows * most: [*(("strong", count) for count in fewer), ("both", most)]}
    return found | {rows * count: [("weak", count)] for count in reversed(fewer)}


def scale(part: str, options: argparse.Namespace) -> bool:
    """Prints a line for each arm of a part; whether all losses agree."""
    agree, counts = True, tuple(count for count in DEVICES[part] if count <= options.most)
    share = "share (range)"
    print(f"{'scaling':8}{part:>10} {'mesh':5}{'rows':>5}{'tokens/s':>10}{'of one':>9}  {share:18}{'compile s':>9}")
    for rows, arms in cases(counts, options.rows).items():
        history: list[float] = []
        with start("data", rows, options.layers) as one:
            for (kind, count), mesh in itertools.product(arms, MESHES):
                with start(mesh, rows, options.layers, **{part: count}) as other:
                    pairs, losses = turns(one, other, options.rounds, history)
                agree &= agreeing(losses, history)
                alone, shared = (rows * LENGTH / statistics.median(seconds) for seconds in zip(*pairs))
                share = spread([alone / shared for alone, shared in pairs])
                print(
                    f"{kind:8}{count:10} {mesh:5}{rows:5}{shared:10,.0f}{alone:9,.0f}  {share:18}"
                    f"{other.facts['compile']:9.1f}",
                    flush=True,
                )
    return agree


def turns(
    one: Worker, other: Worker, rounds: int, history: list[float], warm: int = 2
) -> tuple[list[tuple[float, float]], list[float]]:
    """(Seconds of a step alone, of one shared) of each counted round, and the other's losses.

    `history` gets the losses of the one, whose first steps may have been taken before.
    """
    pairs, losses = [], []
    for counted in range(-warm, rounds):
        alone, shared = one.turn(), other.turn()
        history.append(alone["loss"])
        losses.append(shared["loss"])
        if counted >= 0:
            pairs.append((alone["seconds"], shared["seconds"]))
    return pairs, losses


def agreeing(losses: list[float], history: list[float]) -> bool:
    """Whether these are the first losses of another."""
    return all(abs(a - b) <= TOLERANCE * abs(b) for a, b in zip(losses, history, strict=False))


# --- chips by closed forms ---------------------------------------------------------------------------------------


def planned(chips: int, rows: int) -> dict[str, Any] | None:
    """The best way to run LLaMA 2 7B with as many rows a step, by the closed form; None where nothing fits."""
    from jaxlm.config.chips import CHIPS as KINDS
    from jaxlm.config.load import load_experiment
    from jaxlm.config.memory import shape_of_mesh
    from jaxlm.planning import search

    given = load_experiment(LLAMA)
    tree = dataclasses.replace(given, train=dataclasses.replace(given.train, batch=rows))
    found = search.candidates(tree, KINDS["v5p"], chips)
    if not found:
        return None
    best = found[0].experiment
    mesh = {axis: size for axis, size in shape_of_mesh(best, chips).items() if size > 1}
    return {
        "seconds": found[0].seconds,
        "speed": rows * tree.train.length / found[0].seconds / chips,
        "mesh": " x ".join(f"{axis} {size}" for axis, size in mesh.items()) or "one device",
        "micro": best.where.micro_batches,
        "remat": best.where.remat,
        "gib": found[0].bytes / 2**30,
    }


def plan(chips: list[int]) -> None:
    """Prints weak and strong scaling of LLaMA 2 7B."""
    print("LLaMA 2 7B on v5p, best of the closed form, which ranks and predicts nothing")
    columns = f"{'step s':>9}{'tokens/s/chip':>15}{'share':>7}{'GiB':>6}"
    print(f"{'scaling':8}{'chips':>6}{'rows':>7}{columns}  mesh, micro-batches, remat")
    for kind in ("weak", "strong"):
        base = None
        for count in sorted(chips):
            rows = WEAK_ROWS * count if kind == "weak" else STRONG_ROWS
            one = planned(count, rows)
            if one is None:
                print(f"{kind:8}{count:6,}{rows:7,}  nothing divides and fits", flush=True)
                continue
            base = base or one["speed"]
            print(
                f"{kind:8}{count:6,}{rows:7,}{one['seconds']:9.3f}{one['speed']:15,.0f}{one['speed'] / base:7.2f}"
                f"{one['gib']:6.1f}  {one['mesh']}, {one['micro']}, {one['remat']}",
                flush=True,
            )
    print("share: tokens/s a chip, of those of the fewest chips that it fits on")


def main() -> None:
    """Prints the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = (*DEVICES, "plan")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts)}; all of them by default")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="counted steps of each, after two")
    parser.add_argument("--rows", type=at_least(1), default=2, help="rows of a device in weak scaling")
    parser.add_argument("--layers", type=at_least(1), default=4, help="of the model on this machine")
    parser.add_argument("--most", type=at_least(2), default=8, help="devices or processes, at most")
    parser.add_argument("--chips", type=at_least(1), nargs="+", default=list(CHIPS))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        mesh, rows, layers = options.work
        work(mesh, int(rows), int(layers))
        return
    unknown = [part for part in options.part if part not in parts]
    if unknown:
        parser.error(f"no part {unknown[0]}: there are {', '.join(parts)}")
    agree = True
    for part in options.part or parts:
        if part == "plan":
            plan(options.chips)
        else:
            agree &= scale(part, options)
        print(flush=True)
    if not agree:
        sys.exit("the losses disagree")


if __name__ == "__main__":
    main()
