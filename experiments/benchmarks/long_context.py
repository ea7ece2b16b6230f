"""A training step on one row of 32,768 tokens: peak memory and time of the attention backends.

    python experiments/benchmarks/long_context.py [--length 32768] [--steps 2]

Four layers of 256 features, 4 heads, float32, AdamW. Chunked attention on one device, ring and all-to-all attention
over several devices of this machine, and plain attention, which is only compiled: the memory that it asks for is
shown. Each arm is a process of its own; its peak is what the operating system saw (resident set), all devices
together. The losses must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

ARMS = {"xla": 1, "chunked": 1, "ring": 8, "all_to_all": 4}
"""Attention backend -> devices that share the row."""


def arm(attention: str, length: int, steps: int) -> dict:
    """Compiles the step of one arm and, but for plain attention, runs it."""
    import jax
    import numpy as np

    from jaxlm import config
    from jaxlm.layers.contracts import Batch, Tokens
    from jaxlm.train.initial import initial_state
    from jaxlm.train.setup import make_setup
    from jaxlm.train.step import make_step

    block = config.Block(config.Attention(heads=4, kv_heads=4, head=64), config.Gated(width=688))
    setup = make_setup(
        config.Experiment(
            name="long_context",
            model=config.Decoder(vocab=512, embed=256, layers=4, block=block),
            objective=config.Autoregressive(chunks=32),
            train=config.Train(steps=steps, batch=1, length=length),
            where=config.Where(mesh=config.Mesh(context=ARMS[attention]), attention=attention, remat="full"),
        )
    )
    layout = setup.call.layout
    ids = np.random.default_rng(0).integers(0, 512, (1, length + 1)).astype(np.int32)
    order = layout.order(length)

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x[:, order], layout.sharding(("row", "pos"), x.shape))

    ones = np.ones((1, length), np.int32)
    tokens = Tokens(put(ids[:, :-1]), put(ones), put(np.arange(length, dtype=np.int32)[None]))
    rows = jax.device_put(np.zeros(1, np.int32), layout.sharding(("row",), (1,)))
    batch = Batch(tokens, put(ids[:, 1:]), put(ones.astype(np.float32)), rows, put(ones))
    step = make_step(setup.objective, setup.optimizer, setup.call, seed=0, clip=1.0)
    places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0, out_shardings=(places, None)).lower(setup.abstract, batch)
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    found = {
        "compile": time.perf_counter() - start,
        "asks": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) * ARMS[attention],
    }
    if attention == "xla":
        return found
    state, losses = initial_state(setup), []
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
        found["step"] = time.perf_counter() - start
    return found | {"losses": losses, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def measured(attention: str, length: int, steps: int) -> dict:
    """One arm in a process of its own."""
    words = [sys.executable, __file__, "--arm", attention, "--length", str(length), "--steps", str(steps)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(ARMS[attention])}
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints a line for each arm as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(arm(options.arm, options.length, options.steps)))
        return
    print(f"{'attention':12}{'devices':>8}{'compile s':>11}{'asks MiB':>10}{'peak MiB':>10}{'step s':>8}  losses")
    losses: list[list[float]] = []
    for name, devices in ARMS.items():
        found = measured(name, options.length, options.steps)
        ran = "peak" in found
        peak = f"{found['peak'] / 2**20:10,.0f}{found['step']:8.1f}" if ran else f"{'not run':>10}{'':8}"
        shown = " ".join(f"{loss:.5f}" for loss in found.get("losses", []))
        print(
            f"{name:12}{devices:8}{found['compile']:11.1f}{found['asks'] / 2**20:10,.0f}{peak}  {shown}", flush=True
        )
        losses += [found["losses"]] if ran else []
    if any(abs(a - b) > 2e-5 * abs(b) for other in losses for a, b in zip(other, losses[0], strict=True)):
        sys.exit("the losses disagree")


if __name__ == "__main__":
    main()
