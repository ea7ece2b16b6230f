"""Tokens per second of one training step, beside the same model in eager PyTorch.

    python experiments/benchmarks/train_step.py [--rounds 7]      # needs: pip install torch

Six layers, 384 features, 6 heads, 16 rows of 256 tokens, AdamW with clipping, vocabulary 512 and 32,768, in float32
and in bfloat16 (PyTorch: autocast, scaled_dot_product_attention, fused AdamW). Each side runs in a process of its
own, as its users run it (jaxlm with the allocator settings that the command line makes); the two take turns step by
step, so that a machine whose speed drifts does not favor one. Both start from the same parameters and must agree on
the loss. On an accelerator, without PyTorch, it prints the model FLOPs utilization.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

LAYERS, EMBED, HEADS, WIDTH, ROWS, LENGTH = 6, 384, 6, 1536, 16, 256
CASES = [(precision, vocab) for vocab in (512, 32_768) for precision in ("float32", "bfloat16")]


def arrays(vocab: int) -> dict[str, Any]:
    """Initial parameters and one batch, the same for both sides."""
    import numpy as np

    draw = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return (0.02 * draw.standard_normal(shape)).astype(np.float32)

    per_layer = {
        "query": (EMBED, HEADS, EMBED // HEADS),
        "key": (EMBED, HEADS, EMBED // HEADS),
        "value": (EMBED, HEADS, EMBED // HEADS),
        "out": (HEADS, EMBED // HEADS, EMBED),
        "up": (EMBED, WIDTH),
        "down": (WIDTH, EMBED),
    }
    tokens = draw.integers(0, vocab, (ROWS, LENGTH + 1)).astype(np.int32)
    return {
        "embedding": normal(vocab, EMBED),
        "positions": normal(LENGTH, EMBED),
        "tokens": tokens,
        **{name: normal(LAYERS, *shape) for name, shape in per_layer.items()},
    }


# --- the two sides: each is a function (precision, vocab) -> (step, facts), step() -> loss ----------------------


def jaxlm_side(precision: str, vocab: int) -> tuple[Any, dict[str, Any]]:
    """The step that `jaxlm run` compiles."""
    import jax
    import jax.numpy as jnp

    from jaxlm import config
    from jaxlm.layers.contracts import Batch, Call, Tokens
    from jaxlm.layers.names import map_named, partition
    from jaxlm.models import build
    from jaxlm.objectives.autoregressive import Autoregressive
    from jaxlm.parallel.layout import single_device
    from jaxlm.train import optimizers
    from jaxlm.train.state import State
    from jaxlm.train.step import make_step

    attention = config.Attention(heads=HEADS, kv_heads=HEADS, head=EMBED // HEADS)
    model_config = config.Decoder(
        vocab=vocab,
        embed=EMBED,
        layers=LAYERS,
        block=config.Block(attention=attention, mlp=config.Plain(width=WIDTH)),
        position=config.Learned(length=LENGTH),
        norm=config.LayerNorm(),
    )
    given = arrays(vocab)
    named = {"table.kernel": "positions", "embedding.kernel": "embedding"}
    named |= {f"{name}.kernel": name for name in ("query", "key", "value", "out", "up", "down")}

    def value(name: str, leaf: Any) -> Any:
        source = next((given[key] for end, key in named.items() if name.endswith(end)), None)
        return leaf if source is None else jnp.asarray(source).reshape(leaf.shape)

    model = map_named(value, build(model_config, jax.random.key(0)))
    call = Call(single_device(), config.PRECISIONS[precision], layers="unroll")
    optimizer = optimizers.build(config.AdamW(schedule=config.Constant(peak=1e-3), decay=0.0), 1000, call.precision)
    trained, frozen = partition(model, lambda name, leaf: True)
    state = State(jnp.zeros((), jnp.int32), trained, {"model": frozen}, optimizer.init(trained))
    ids = jnp.asarray(given["tokens"])
    ones, place = jnp.ones((ROWS, LENGTH), jnp.int32), jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH))
    inputs = Tokens(ids[:, :-1], ones, place)
    batch = Batch(inputs, ids[:, 1:], ones.astype(jnp.float32), jnp.arange(ROWS), ones)
    step = make_step(Autoregressive(), optimizer, call, seed=0, clip=1.0)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    facts = {"compile": time.perf_counter() - start, "device": jax.devices()[0].device_kind}
    box = [state]

    def take() -> float:
        box[0], metrics = compiled(box[0], batch)
        jax.block_until_ready(box[0])
        return float(metrics["loss"])

    return take, facts


def torch_side(precision: str, vocab: int) -> tuple[Any, dict[str, Any]]:
    """Eager PyTorch as its users write it."""
    import torch
    from torch.nn import functional as F

    given = {name: torch.from_numpy(value.copy()) for name, value in arrays(vocab).items()}
    tokens = given.pop("tokens").long()
    flat = {"query": (EMBED, EMBED), "key": (EMBED, EMBED), "value": (EMBED, EMBED), "out": (EMBED, EMBED)}
    parameters = {"embedding": given["embedding"], "positions": given["positions"], "final": torch.ones(EMBED)}
    parameters["final_bias"] = torch.zeros(EMBED)
    for layer in range(LAYERS):
        for name in ("query", "key", "value", "out", "up", "down"):
            kernel = given[name][layer]
            # The layout of torch.nn.Linear: outputs first.
            parameters[f"{layer}.{name}"] = kernel.reshape(flat.get(name, kernel.shape)).t().contiguous()
        for norm in ("attention", "mlp"):
            parameters[f"{layer}.{norm}.scale"], parameters[f"{layer}.{norm}.bias"] = (
                torch.ones(EMBED),
                torch.zeros(EMBED),
            )
    p = {name: torch.nn.Parameter(value) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(p.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def normed(x: Any, name: str) -> Any:
        return F.layer_norm(x, (EMBED,), p[f"{name}.scale"], p[f"{name}.bias"], 1e-5)

    def forward() -> Any:
        x = F.embedding(tokens[:, :-1], p["embedding"]) + p["positions"]
        for layer in range(LAYERS):
            y = normed(x, f"{layer}.attention")
            q, k, v = (
                F.linear(y, p[f"{layer}.{name}"]).view(ROWS, LENGTH, HEADS, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(y.transpose(1, 2).reshape(ROWS, LENGTH, EMBED), p[f"{layer}.out"])
            y = F.gelu(F.linear(normed(x, f"{layer}.mlp"), p[f"{layer}.up"]), approximate="tanh")
            x = x + F.linear(y, p[f"{layer}.down"])
        x = F.layer_norm(x, (EMBED,), p["final"], p["final_bias"], 1e-5)
        logits = F.linear(x, p["embedding"])
        return F.cross_entropy(logits.float().view(-1, vocab), tokens[:, 1:].reshape(-1))

    def take() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        optimizer.step()
        return loss.item()

    return take, {"compile": 0.0, "device": "cpu"}


SIDES = {"jaxlm": jaxlm_side, "torch": torch_side}


def work(side: str, precision: str, vocab: int) -> None:
    """A process of one side: a line on stdin is a step, a line on stdout its seconds and loss."""
    take, facts = SIDES[side](precision, vocab)
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = take()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "loss": loss, "peak": peak}), flush=True)


# --- the comparison --------------------------------------------------------------------------------------------


class Worker:
    """One side's process."""

    def __init__(self, side: str, precision: str, vocab: int):
        from jaxlm.cli.environment import TUNABLES

        environment = dict(os.environ) | ({"GLIBC_TUNABLES": TUNABLES} if side == "jaxlm" else {})
        command = [sys.executable, __file__, "--work", side, precision, str(vocab)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended early with code {self._process.wait()}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """One training step."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(precision: str, vocab: int, rounds: int) -> str:
    """One row of the table."""
    sides = {side: Worker(side, precision, vocab) for side in SIDES}
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds + 2):
        for side, worker in sides.items():
            taken[side].append(worker.step())
    for worker in sides.values():
        worker.close()
    for mine, theirs in zip(taken["jaxlm"], taken["torch"], strict=True):
        tolerance = 1e-3 if precision == "float32" else 3e-2
        assert abs(mine["loss"] - theirs["loss"]) < tolerance * theirs["loss"], (mine, theirs)
    seconds = {side: [step["seconds"] for step in steps[2:]] for side, steps in taken.items()}
    speed = {side: ROWS * LENGTH / statistics.median(times) for side, times in seconds.items()}
    ratios = sorted(b / a for a, b in zip(seconds["jaxlm"], seconds["torch"], strict=True))
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
    peak = {side: steps[-1]["peak"] for side, steps in taken.items()}
    return (
        f"{precision:9} {vocab:7,} {speed['jaxlm']:8,.0f} {speed['torch']:8,.0f}   {ratio:17} "
        f"{sides['jaxlm'].facts['compile']:7.1f} {peak['jaxlm']:8,.0f} {peak['torch']:8,.0f}"
    )


def products() -> str:
    """GF/s of the widest product of a layer, forward and both backward ones, as each side computes it."""
    lines = ["", "product 4096 x 384 x 1536, GF/s     forward       dx       dW"]
    for side, of in (("jaxlm", jaxlm_products), ("torch", torch_products)):
        for dtype in ("float32", "bfloat16"):
            rates = [2 * ROWS * LENGTH * EMBED * WIDTH / median_seconds(call) / 1e9 for call in of(dtype)]
            lines.append(f"{side} {dtype:29} " + " ".join(f"{rate:8.0f}" for rate in rates))
    return "\n".join(lines)


def jaxlm_products(dtype: str) -> list[Any]:
    """Forward, dx and dW, each a function without arguments."""
    import jax
    import jax.numpy as jnp

    from jaxlm.layers.products import contract

    x, w = jnp.ones((ROWS * LENGTH, EMBED), dtype), jnp.ones((EMBED, WIDTH), dtype)
    y = jnp.ones((ROWS * LENGTH, WIDTH), dtype)

    def forward(x: Any, w: Any) -> Any:
        return contract(x, w, "re,em->rm")

    def dx(x: Any, w: Any, y: Any) -> Any:
        return jax.vjp(lambda x: forward(x, w), x)[1](y)

    def dw(x: Any, w: Any, y: Any) -> Any:
        return jax.vjp(lambda w: forward(x, w), w)[1](y)

    def ready(function: Any, *operands: Any) -> Any:
        compiled = jax.jit(function).lower(*operands).compile()
        return lambda: jax.block_until_ready(compiled(*operands))

    return [ready(forward, x, w), ready(dx, x, w, y), ready(dw, x, w, y)]


def torch_products(dtype: str) -> list[Any]:
    """The same, with the weight as torch.nn.Linear has it."""
    import torch

    kind = getattr(torch, dtype)
    x, w = torch.ones(ROWS * LENGTH, EMBED, dtype=kind), torch.ones(WIDTH, EMBED, dtype=kind)
    y = torch.ones(ROWS * LENGTH, WIDTH, dtype=kind)
    return [lambda: x @ w.t(), lambda: y @ w, lambda: y.t() @ x]


def median_seconds(call: Any) -> float:
    """Median of 20 calls, after three."""
    times = []
    for _ in range(23):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def utilization(rounds: int) -> str:
    """On an accelerator: tokens per second and the share of the chip's peak that the model's FLOPs are."""
    from jaxlm.config import Attention, Block, Decoder, LayerNorm, Learned, Plain
    from jaxlm.config.flops import flops_per_token

    peaks = {"H100": 989e12, "A100": 312e12, "TPU v5p": 459e12, "TPU v5 lite": 197e12, "TPU v6": 918e12}
    lines = []
    for precision, vocab in CASES:
        take, facts = jaxlm_side(precision, vocab)
        take()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            take()
            times.append(time.perf_counter() - start)
        speed = ROWS * LENGTH / statistics.median(times)
        block = Block(attention=Attention(heads=HEADS, kv_heads=HEADS, head=64), mlp=Plain(width=WIDTH))
        model = Decoder(vocab, EMBED, LAYERS, block, Learned(LENGTH), LayerNorm())
        peak = next((peak for name, peak in peaks.items() if name in facts["device"]), None)
        share = (
            "unknown peak" if peak is None else f"{speed * flops_per_token(model, LENGTH)['training'] / peak:.1%}"
        )
        lines.append(
            f"{facts['device']} {precision:9} {vocab:7,} {speed:10,.0f} tokens/s  MFU (bfloat16 peak) {share}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="counted steps of each side, after two warm-up steps")
    parser.add_argument("--only", help="precision:vocabulary, for one row")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], int(options.work[2]))
        return
    import jax

    if jax.default_backend() != "cpu":
        print(utilization(options.rounds))
        return
    sides = f"{'jaxlm':>8} {'torch':>8}"
    print(f"{'':17} {'tokens/s':>17}   {'ratio (range)':17} {'compile':>7} {'peak MiB':>17}")
    print(f"{'precision':9} {'vocab':>7} {sides}   {'jaxlm/torch':17} {'s':>7} {sides}")
    for precision, vocab in CASES:
        if options.only in (None, f"{precision}:{vocab}"):
            print(compare(precision, vocab, options.rounds), flush=True)
    print(products())


if __name__ == "__main__":
    main()
