"""Tokens per second of one training step, beside the same model in PyTorch.

    python experiments/benchmarks/train_step.py [--rounds 7]      # needs: pip install torch
    python experiments/benchmarks/train_step.py --device gpu

On a CPU six layers, 384 features, 6 heads, 16 rows of 256 tokens, vocabulary 512 and 32,768, in float32 and in
bfloat16; on a GPU GPT-2's 124 M parameters with 16 rows of 1,024 tokens in bfloat16, PyTorch also compiled. AdamW
with clipping (PyTorch: autocast, scaled_dot_product_attention, fused AdamW). Each side runs in a process of its
own, as its users run it (jaxlm with the allocator settings that the command line makes); they take turns step by
step, so that a machine whose speed drifts does not favor one. All start from the same parameters and must agree on
the loss.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any

from workers import Worker, at_least, serve, spread


@dataclass(frozen=True)
class Size:
    """The model and its batch."""

    layers: int
    embed: int
    heads: int
    rows: int
    length: int

    @property
    def width(self) -> int:
        """Features of the MLP."""
        return 4 * self.embed

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length


SIZES = {"cpu": Size(6, 384, 6, 16, 256), "gpu": Size(12, 768, 12, 16, 1024)}
CPU = SIZES["cpu"]
CASES = {
    "cpu": [(precision, vocab) for vocab in (512, 32_768) for precision in ("float32", "bfloat16")],
    "gpu": [("bfloat16", 50_304)],
}
"""Device -> (precision, vocabulary)."""
RIVALS = {"cpu": ("torch",), "gpu": ("torch", "compiled")}
"""Device -> the other sides; "compiled" is PyTorch under torch.compile."""


def arrays(size: Size, vocab: int) -> dict[str, Any]:
    """Initial parameters and one batch, the same for both sides."""
    import numpy as np

    draw = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return (0.02 * draw.standard_normal(shape)).astype(np.float32)

    per_layer = {
        "query": (size.embed, size.heads, size.embed // size.heads),
        "key": (size.embed, size.heads, size.embed // size.heads),
        "value": (size.embed, size.heads, size.embed // size.heads),
        "out": (size.heads, size.embed // size.heads, size.embed),
        "up": (size.embed, size.width),
        "down": (size.width, size.embed),
    }
    tokens = draw.integers(0, vocab, (size.rows, size.length + 1)).astype(np.int32)
    return {
        "embedding": normal(vocab, size.embed),
        "positions": normal(size.length, size.embed),
        "tokens": tokens,
        **{name: normal(size.layers, *shape) for name, shape in per_layer.items()},
    }


# --- the sides: (size, precision, vocab) -> (step, seconds of compiling), step() -> loss --------------------------


def jaxlm_side(size: Size, precision: str, vocab: int) -> tuple[Any, float]:
    """The step that `jaxlm run` compiles."""
    import jax
    import jax.numpy as jnp

    from jaxlm import config
    from jaxlm.layers.contracts import Batch, Call, Tokens
    from jaxlm.layers.names import map_named, partition
    from jaxlm.models import build
    from jaxlm.objectives.prediction import Prediction
    from jaxlm.parallel.layout import single_device
    from jaxlm.train import optimizers
    from jaxlm.train.state import State
    from jaxlm.train.step import make_step

    attention = config.Attention(heads=size.heads, kv_heads=size.heads, head=size.embed // size.heads)
    model_config = config.Decoder(
        vocab=vocab,
        embed=size.embed,
        layers=size.layers,
        block=config.Block(attention=attention, mlp=config.Plain(width=size.width)),
        position=config.Learned(length=size.length),
        norm=config.LayerNorm(),
    )
    given = arrays(size, vocab)
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
    ones, place = (
        jnp.ones((size.rows, size.length), jnp.int32),
        jnp.broadcast_to(jnp.arange(size.length), (size.rows, size.length)),
    )
    inputs = Tokens(ids[:, :-1], ones, place)
    batch = Batch(inputs, ids[:, 1:], ones.astype(jnp.float32), jnp.arange(size.rows), ones)
    step = make_step(Prediction(), optimizer, call, seed=0, clip=1.0)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    seconds = time.perf_counter() - start
    box = [state]

    def take() -> float:
        box[0], metrics = compiled(box[0], batch)
        jax.block_until_ready(box[0])
        return float(metrics["loss"])

    return take, seconds


def torch_side(size: Size, precision: str, vocab: int, compiled: bool = False) -> tuple[Any, float]:
    """PyTorch as its users write it."""
    import torch
    from torch.nn import functional as F

    device = "cuda" if size == SIZES["gpu"] else "cpu"
    torch.set_float32_matmul_precision("high")
    given = {name: torch.from_numpy(value.copy()).to(device) for name, value in arrays(size, vocab).items()}
    tokens = given.pop("tokens").long()
    flat = {
        "query": (size.embed, size.embed),
        "key": (size.embed, size.embed),
        "value": (size.embed, size.embed),
        "out": (size.embed, size.embed),
    }
    parameters = {
        "embedding": given["embedding"],
        "positions": given["positions"],
        "final": torch.ones(size.embed, device=device),
    }
    parameters["final_bias"] = torch.zeros(size.embed, device=device)
    for layer in range(size.layers):
        for name in ("query", "key", "value", "out", "up", "down"):
            kernel = given[name][layer]
            # The layout of torch.nn.Linear: outputs first.
            parameters[f"{layer}.{name}"] = kernel.reshape(flat.get(name, kernel.shape)).t().contiguous()
        for norm in ("attention", "mlp"):
            parameters[f"{layer}.{norm}.scale"], parameters[f"{layer}.{norm}.bias"] = (
                torch.ones(size.embed, device=device),
                torch.zeros(size.embed, device=device),
            )
    p = {name: torch.nn.Parameter(value) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(p.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def normed(x: Any, name: str) -> Any:
        return F.layer_norm(x, (size.embed,), p[f"{name}.scale"], p[f"{name}.bias"], 1e-5)

    def forward() -> Any:
        x = F.embedding(tokens[:, :-1], p["embedding"]) + p["positions"]
        for layer in range(size.layers):
            y = normed(x, f"{layer}.attention")
            q, k, v = (
                F.linear(y, p[f"{layer}.{name}"]).view(size.rows, size.length, size.heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(y.transpose(1, 2).reshape(size.rows, size.length, size.embed), p[f"{layer}.out"])
            y = F.gelu(F.linear(normed(x, f"{layer}.mlp"), p[f"{layer}.up"]), approximate="tanh")
            x = x + F.linear(y, p[f"{layer}.down"])
        x = F.layer_norm(x, (size.embed,), p["final"], p["final_bias"], 1e-5)
        logits = F.linear(x, p["embedding"])
        return F.cross_entropy(logits.float().view(-1, vocab), tokens[:, 1:].reshape(-1))

    model = torch.compile(forward) if compiled else forward

    def take() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        optimizer.step()
        return loss.item()

    start = time.perf_counter()
    if compiled:  # a step would change the parameters, a forward and backward pass compiles as much
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            model().backward()
    return take, time.perf_counter() - start


SIDES = {"jaxlm": jaxlm_side, "torch": torch_side, "compiled": functools.partial(torch_side, compiled=True)}


def peak(side: str, device: str) -> int:
    """MiB of a process: resident on a CPU, given out by the allocator on a GPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if side == "jaxlm":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] // 2**20
    import torch

    return torch.cuda.max_memory_allocated() // 2**20


def work(side: str, device: str, precision: str, vocab: int) -> None:
    """A process of one side: each turn is a step."""
    take, compiling = SIDES[side](SIZES[device], precision, vocab)

    def turn() -> dict[str, float]:
        start = time.perf_counter()
        loss = take()
        return {"seconds": time.perf_counter() - start, "loss": loss, "peak": peak(side, device)}

    serve({"compile": compiling}, turn)


# --- the comparison ----------------------------------------------------------------------------------------------


def start(side: str, device: str, precision: str, vocab: int) -> Worker:
    """The process of one side."""
    from jaxlm.cli.environment import TUNABLES

    # the sides share the device
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if device == "gpu" else {"JAX_PLATFORMS": "cpu"}
    environment |= {"GLIBC_TUNABLES": TUNABLES} if side == "jaxlm" else {}
    return Worker([__file__, "--work", side, device, precision, str(vocab)], environment)


def compare(device: str, precision: str, vocab: int, rounds: int) -> list[str]:
    """A line for each side."""
    sides = ("jaxlm", *RIVALS[device])
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(start(side, device, precision, vocab)) for side in sides}
        for _ in range(rounds + 2):
            for side, worker in workers.items():
                taken[side].append(worker.turn())
    for turns in zip(*taken.values(), strict=True):
        losses = [turn["loss"] for turn in turns]
        tolerance = 1e-3 if precision == "float32" else 3e-2
        assert max(losses) - min(losses) < tolerance * min(losses), losses
    seconds = {side: [turn["seconds"] for turn in turns[2:]] for side, turns in taken.items()}
    lines = []
    for side in sides:
        speed = SIZES[device].tokens / statistics.median(seconds[side])
        ratio = spread([b / a for a, b in zip(seconds["jaxlm"], seconds[side], strict=True)])
        lines.append(
            f"{precision:9} {vocab:7,}  {side:9}{speed:10,.0f}   {'1' if side == 'jaxlm' else ratio:17}"
            f"{workers[side].facts['compile']:8.1f}{taken[side][-1]['peak']:10,.0f}"
        )
    return lines


def products() -> str:
    """GF/s of the widest product of a layer, forward and both backward ones, as each side computes it."""
    lines = ["", "product 4096 x 384 x 1536, GF/s     forward       dx       dW"]
    for side, of in (("jaxlm", jaxlm_products), ("torch", torch_products)):
        for dtype in ("float32", "bfloat16"):
            rates = [2 * CPU.tokens * CPU.embed * CPU.width / median_seconds(call) / 1e9 for call in of(dtype)]
            lines.append(f"{side} {dtype:29} " + " ".join(f"{rate:8.0f}" for rate in rates))
    return "\n".join(lines)


def jaxlm_products(dtype: str) -> list[Any]:
    """Forward, dx and dW, each a function without arguments."""
    import jax
    import jax.numpy as jnp

    from jaxlm.layers.products import contract

    x, w = jnp.ones((CPU.tokens, CPU.embed), dtype), jnp.ones((CPU.embed, CPU.width), dtype)
    y = jnp.ones((CPU.tokens, CPU.width), dtype)

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
    x, w = torch.ones(CPU.tokens, CPU.embed, dtype=kind), torch.ones(CPU.width, CPU.embed, dtype=kind)
    y = torch.ones(CPU.tokens, CPU.width, dtype=kind)
    return [lambda: x @ w.t(), lambda: y @ w, lambda: y.t() @ x]


def median_seconds(call: Any) -> float:
    """Median of 20 calls, after three."""
    times = []
    for _ in range(23):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--rounds", type=at_least(1), default=7, help="counted steps of each side, after two")
    parser.add_argument("--only", help="precision:vocabulary, for one case")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        side, device, precision, vocab = options.work
        work(side, device, precision, int(vocab))
        return
    head = f"{'precision':9} {'vocab':>7}  {'side':9}{'tokens/s':>10}   {'jaxlm/it (range)':17}"
    print(f"{head}{'compile s':>8}{'peak MiB':>10}")
    for precision, vocab in CASES[options.device]:
        if options.only in (None, f"{precision}:{vocab}"):
            print("\n".join(compare(options.device, precision, vocab, options.rounds)), flush=True)
    if options.device == "cpu":
        print(products())


if __name__ == "__main__":
    main()
