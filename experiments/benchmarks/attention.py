"""The attention backends beside each other and beside PyTorch: time and peak memory over lengths.

    python experiments/benchmarks/attention.py [--lengths 1024 32768] [--precision bfloat16] [--rounds 5]
    python experiments/benchmarks/attention.py --device gpu [--documents 40] [--window 1024]
    pip install 'jaxlm[parity]'         # brings PyTorch; without it, that line is left out

Causal attention of one row with itself: `attend` as models call it, forward, and forward with the gradients of
queries, keys and values; PyTorch's side is scaled_dot_product_attention, left out where the row has several
documents or a window. On a CPU, 4 heads of 64, and ring and all-to-all spread the row over 4 CPU devices of one
process, which share this machine's cores: what they show is overhead and memory, not what devices of their own
would gain. On a GPU, 32 heads of 128. Every (length, backend, pass) is a process of its own, jaxlm's with the
allocator settings that the command line makes; the processes of a length take turns. Peak memory is on a CPU the
resident set that the operating system saw, the interpreter and compiling included, on a GPU what the allocator gave
out at most. A program that by its compiler needs more than --limit GiB is not run, and the line says what it asks
for. Results must agree at every length, with those of xla where it ran, else of chunked; `differs` is the largest
difference.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import Worker, at_least, serve, spread

SHAPES = {"cpu": (4, 64), "gpu": (32, 128)}
"""Device -> heads and features of each."""
BACKENDS = {"torch": 1, "cudnn": 1, "xla": 1, "blocks": 1, "chunked": 1, "ring": 4, "all_to_all": 4}
"""Backend -> devices that share the row."""
ONLY = {"cudnn": "gpu", "ring": "cpu", "all_to_all": "cpu"}
"""Backend -> the device it is for here, where it is not for both."""
PASSES = {"forward": ("output",), "gradient": ("output", "d query", "d key", "d value")}
"""Pass -> what it computes."""
UNIT = 256
"""Lengths are multiples of this, so that every backend takes them."""
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
"""Largest difference between backends, as a share of the largest number; at least an absolute one."""
NOT_JUDGED = ("torch", "bfloat16", "gradient")
"""On a CPU, PyTorch adds the gradients of keys and values up in bfloat16: beside its own float32 they are off by
1 % at 4,096 tokens and by more at more. The difference is only shown."""


@dataclass(frozen=True)
class Case:
    """What one process does."""

    backend: str
    length: int
    passed: str
    precision: str
    device: str
    documents: int
    window: int | None
    limit: float
    """GiB that its program may ask for."""
    path: str
    """Where its last result goes."""


Side = Callable[[], Any]
Saved = Callable[[Any], list[Any]]


def arrays(case: Case) -> Iterator[Any]:
    """Queries, keys, values and, for gradients, the output's, [row, pos, heads, head], the same for all.

    One after the other, so that the peak of memory is not theirs.
    """
    import numpy as np

    draw = np.random.default_rng(0)
    for _ in range(3 if case.passed == "forward" else 4):
        yield draw.standard_normal((1, case.length, *SHAPES[case.device]), dtype=np.float32)


def documents(case: Case) -> tuple[Any, Any]:
    """Positions and segments [row, pos] of a row of so many documents, of lengths drawn at random."""
    import numpy as np

    draw = np.random.default_rng(1)
    starts = np.sort(draw.choice(np.arange(1, case.length), case.documents - 1, replace=False))
    segments = 1 + np.searchsorted(starts, np.arange(case.length), side="right")
    positions = np.arange(case.length) - np.concatenate([[0], starts])[segments - 1]
    return positions[None].astype(np.int32), segments[None].astype(np.int32)


# --- the sides: a case -> (one turn, its result as numpy arrays, bytes it asks for, its peak of memory) -----------


def jaxlm_side(case: Case) -> tuple[Side, Saved, int | None, Callable[[], int]]:
    """`attend` as the model's attention calls it."""
    import jax
    import numpy as np

    from jaxlm import config
    from jaxlm.layers.attention.call import TOKENS, Q, attend
    from jaxlm.layers.attention.mask import Mask
    from jaxlm.layers.contracts import Call
    from jaxlm.parallel.layout import Layout
    from jaxlm.parallel.mesh import make_mesh

    backend, devices = case.backend, BACKENDS[case.backend]
    layout = Layout(make_mesh(config.Mesh(context=devices)))
    order = layout.order(case.length)
    call = Call(layout, attention=backend)

    def put(x: np.ndarray, axes: tuple[str, ...], dtype: str) -> jax.Array:
        return jax.device_put(x.astype(jax.numpy.dtype(dtype))[:, order], layout.sharding(axes, x.shape))

    tokens = (put(x, TOKENS, "int32") for x in documents(case))
    operands = (*tokens, *(put(x, Q, case.precision) for x in arrays(case)))

    def forward(positions: Any, segments: Any, q: Any, k: Any, v: Any) -> tuple[Any, ...]:
        mask = Mask(positions, positions, segments, segments, window=case.window, aligned=True)
        return (attend(q, k, v, mask=mask, call=call),)

    def gradient(positions: Any, segments: Any, q: Any, k: Any, v: Any, cotangent: Any) -> tuple[Any, ...]:
        (output,), back = jax.vjp(functools.partial(forward, positions, segments), q, k, v)
        return output, *back((cotangent,))

    compiled = jax.jit(forward if case.passed == "forward" else gradient).lower(*operands).compile()
    memory = compiled.memory_analysis()
    asks = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    def saved(result: Any) -> list[np.ndarray]:
        return [np.asarray(x.astype("float32"))[:, np.argsort(order)] for x in result]

    def peak() -> int:
        return resident() if case.device == "cpu" else jax.devices()[0].memory_stats()["peak_bytes_in_use"]

    return lambda: jax.block_until_ready(compiled(*operands)), saved, asks * devices, peak


def resident() -> int:
    """Bytes of this process in memory, at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def torch_side(case: Case) -> tuple[Side, Saved, int | None, Callable[[], int]]:
    """PyTorch as its users write it: it chooses a kernel by itself."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    dtype, device = getattr(torch, case.precision), {"cpu": "cpu", "gpu": "cuda"}[case.device]
    # [row, heads, pos, head] as a view of what a projection computes.
    given = [torch.from_numpy(x).to(device, dtype).transpose(1, 2) for x in arrays(case)]

    def forward() -> tuple[Any, ...]:
        with torch.no_grad():
            return (scaled_dot_product_attention(*given, is_causal=True),)

    def gradient() -> tuple[Any, ...]:
        *leaves, cotangent = given
        output = scaled_dot_product_attention(*leaves, is_causal=True)
        return output.detach(), *torch.autograd.grad(output, leaves, cotangent)

    if case.passed == "gradient":
        for leaf in given[:3]:
            leaf.requires_grad_()

    def turn() -> tuple[Any, ...]:
        result = forward() if case.passed == "forward" else gradient()
        if case.device == "gpu":
            torch.cuda.synchronize()
        return result

    def peak() -> int:
        return resident() if case.device == "cpu" else torch.cuda.max_memory_allocated()

    return turn, lambda result: [x.float().transpose(1, 2).cpu().numpy() for x in result], None, peak


def work(case: Case) -> None:
    """One process: turns, and at their end the last result, kept for comparing."""
    import numpy as np

    turn, saved, asks, peak = (torch_side if case.backend == "torch" else jaxlm_side)(case)
    runs = asks is None or asks <= case.limit * 2**30
    result = None

    def once() -> dict[str, float]:
        nonlocal result
        result = None  # not two of them at a time
        start = time.perf_counter()
        result = turn()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak": peak()}

    serve({"asks": asks, "runs": runs}, once)
    if result is not None:
        np.savez(case.path, *saved(result))


# --- the comparison ----------------------------------------------------------------------------------------------


def start(case: Case) -> Worker:
    """The process of one backend, length and pass."""
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(BACKENDS[case.backend])}
    if case.device == "gpu":
        # the processes of a length share the device
        environment = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if case.backend != "torch":
        from jaxlm.cli.environment import TUNABLES

        environment["GLIBC_TUNABLES"] = TUNABLES
    return Worker([__file__, "--work", json.dumps(dataclasses.asdict(case))], environment)


def measured(length: int, passed: str, options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Backend -> what it asks for and, where it ran, seconds of each round, peak bytes and its arrays by name."""
    import numpy as np

    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for backend in options.backends:
            some = {
                name: getattr(options, name) for name in ("precision", "device", "documents", "window", "limit")
            }
            case = Case(backend, length, passed, **some, path=str(folder / f"{backend}.npz"))
            worker = stack.enter_context(start(case))
            found[backend] = {"asks": worker.facts["asks"]}
            if worker.facts["runs"]:
                worker.turn()  # the first touches memory that the others find
                workers[backend], found[backend]["seconds"] = worker, []
        for _ in range(options.rounds):
            for backend, worker in workers.items():
                turn = worker.turn()
                found[backend]["seconds"].append(turn["seconds"])
                found[backend]["peak"] = turn["peak"]
    for backend in workers:
        with np.load(folder / f"{backend}.npz") as arrays:
            found[backend]["arrays"] = dict(zip(PASSES[passed], arrays.values(), strict=True))
    return found


def difference(one: Any, other: Any) -> float:
    """Largest difference of two arrays, as a share of the other's largest number if that is above 1."""
    import numpy as np

    return float(np.max(np.abs(one - other)) / max(1.0, np.max(np.abs(other))))


def reference(found: dict[str, Any], preferred: tuple[str, ...]) -> str | None:
    """The first of these backends that ran, or the first of all."""
    ran = [backend for backend, one in found.items() if "seconds" in one]
    return next((one for one in (*preferred, *ran) if one in ran), None)


def cell(one: dict[str, Any], against: dict[str, Any] | None, differs: float) -> str:
    """Time, speed as a multiple of another's, memory and difference of one pass."""
    if "seconds" not in one:
        return f"{'not run: asks ' + format(one['asks'] / 2**30, '.1f') + ' GiB':^50}"
    ratio = ""
    if against is not None and "seconds" in against:
        ratio = "1" if one is against else spread([b / a for a, b in zip(one["seconds"], against["seconds"])])
    milliseconds = 1e3 * statistics.median(one["seconds"])
    return f"{milliseconds:10,.1f}  {ratio:18}{one['peak'] / 2**20:9,.0f}{differs:9.0e}  "


def compare(length: int, options: argparse.Namespace) -> bool:
    """Prints the lines of one length; whether all results agree."""
    cells: dict[str, str] = dict.fromkeys(options.backends, "")
    agree = True
    for passed in PASSES:
        with tempfile.TemporaryDirectory() as folder:
            found = measured(length, passed, options, Path(folder))
        right = reference(found, ("xla", "chunked"))
        for backend, one in found.items():
            pairs = ((one["arrays"][name], found[right]["arrays"][name]) for name in one.get("arrays", ()))
            differs = max((difference(*pair) for pair in pairs), default=0.0)
            judged = (backend, options.precision, passed) != NOT_JUDGED or options.device != "cpu"
            agree &= differs <= TOLERANCE[options.precision] or not judged
            cells[backend] += cell(one, found.get(options.against), differs)
    for backend, shown in cells.items():
        print(f"{length:7,} {backend:11}{BACKENDS[backend]:7}{shown}".rstrip(), flush=True)
    return agree


def length_of(text: str) -> int:
    """A type for argparse."""
    length = int(text)
    if length < UNIT or length % UNIT:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of {UNIT}, so that not every backend takes it")
    return length


def gibibytes(text: str) -> float:
    """A type for argparse."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no size of memory")
    return float(text)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `against` is the backend that the others' speeds are ratios to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lengths = [2**power for power in range(10, 16)]
    parser.add_argument("--lengths", type=length_of, nargs="+", default=lengths, help="tokens of the row")
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--backends", choices=BACKENDS, nargs="+", help="all of the device by default")
    parser.add_argument("--precision", choices=TOLERANCE, help="float32 on a CPU by default, bfloat16 on a GPU")
    parser.add_argument("--documents", type=at_least(1), default=1, help="in the row, of lengths drawn at random")
    parser.add_argument("--window", type=at_least(1), help="of attention, in tokens")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="counted turns of each process")
    parser.add_argument("--limit", type=gibibytes, help="GiB a program may ask for; 4 on a CPU, 40 on a GPU")
    parser.add_argument("--work", type=lambda text: Case(**json.loads(text)), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.work:
        return options
    gpu = options.device == "gpu"
    options.precision = options.precision or ("bfloat16" if gpu else "float32")
    options.limit = options.limit or (40.0 if gpu else 4.0)
    there = [one for one in BACKENDS if ONLY.get(one, options.device) == options.device]
    if strange := sorted({*(options.backends or there)} - {*there}):
        parser.error(f"--backends {' '.join(strange)}: not on a {options.device}; there are {', '.join(there)}")
    options.backends = options.backends or there
    if options.documents > 1 or options.window:
        options.backends = [one for one in options.backends if one != "torch"]
    if importlib.util.find_spec("torch") is None and "torch" in options.backends:
        options.backends = [one for one in options.backends if one != "torch"]
        print("torch is left out: it is not installed; pip install 'jaxlm[parity]'", flush=True)
    if not options.backends:
        parser.error("no backend is left")
    options.against = next((one for one in ("torch", "chunked") if one in options.backends), options.backends[0])
    return options


def main() -> None:
    """Prints the lines of each length as they are done."""
    options = parse()
    if options.work:
        work(options.work)
        return
    heads, head = SHAPES[options.device]
    parts = f" of {options.documents} documents" if options.documents > 1 else ""
    near = f", window {options.window}" if options.window else ""
    shape = f"{options.precision}, one causal row{parts}{near}, {heads} heads of {head}"
    print(f"{shape}; a program that asks for more than {options.limit:g} GiB is not run")
    print(f"{'':25}{'forward':^50}{'forward and gradients':^50}")
    columns = f"{'ms':>10}  {'speed/' + options.against + ' (range)':18}{'peak MiB':>9}{'differs':>9}  "
    print(f"{'length':>7} {'backend':11}{'devices':>7}{columns}{columns}".rstrip(), flush=True)
    if not all([compare(length, options) for length in options.lengths]):
        sys.exit(f"the backends disagree: by more than {TOLERANCE[options.precision]:.0e}")


if __name__ == "__main__":
    main()
