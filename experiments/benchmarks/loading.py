"""Peak memory of loading safetensors, as a multiple of the model: one file and several, one device and eight.

    python experiments/benchmarks/loading.py [--layers 10]

A LLaMA of 0.4 GB with random weights is written, and loaded by a process of its own for each line, onto CPU devices
of that process, sharded over `fsdp` where there are several. The peak is that of its resident set (VmHWM of
Linux, pages of mapped files included) above what it was before loading, when jax had started.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 1.25
FILES = {"one file": 5 * 10**9, "several": 5 * 10**7}
"""How a model is kept -> bytes of a file at most."""
DEVICES = (1, 8)


def settings(layers: int) -> dict:
    """The config.json of a LLaMA with 28 MB a layer and 98 MB of embedding and head."""
    return {
        "model_type": "llama",
        "vocab_size": 16_000,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


def write(directory: Path, layers: int, largest: int) -> None:
    """Writes a model with random weights, each file at most so large."""
    import jax

    from jaxlm.families import known
    from jaxlm.interop import exchange, safetensors
    from jaxlm.models import build

    safetensors.SHARD = largest
    told = settings(layers)
    config = known.family(told["model_type"]).read(told)
    model = jax.jit(lambda: build(config, jax.random.key(0)))()
    exchange.save(config, model, directory, length=told["max_position_embeddings"])


def load(directory: Path, devices: int) -> dict[str, int]:
    """Bytes of the model as it was placed, and of this process's peak above what it was before."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from jaxlm.config import Mesh
    from jaxlm.interop import exchange
    from jaxlm.parallel.layout import Layout
    from jaxlm.parallel.mesh import make_mesh

    layout = Layout(make_mesh(Mesh(fsdp=devices)))
    jax.block_until_ready(jax.numpy.ones(8) + 1)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    _, model = exchange.load(directory, layout)
    jax.block_until_ready(model)
    placed = sum(piece.data.nbytes for leaf in jax.tree.leaves(model) for piece in leaf.addressable_shards)
    return {"model": placed, "peak": resident("VmHWM") - before}


def resident(name: str) -> int:
    """A figure of this process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def child(*words: str) -> str:
    """What this script prints in a process of its own, on CPU devices."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, __file__, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def measured(directory: Path, layers: int) -> dict[tuple[str, int], dict[str, int]]:
    """`load` of every way: (how the model is kept, devices) -> bytes."""
    found = {}
    for number, how in enumerate(FILES):
        path = directory / str(number)
        child("--write", str(path), how, "--layers", str(layers))
        for devices in DEVICES:
            found[how, devices] = json.loads(child("--load", str(path), str(devices)))
    return found


def main() -> None:
    """Prints a line for each way; exits with 1 where one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--write", nargs=2, metavar=("DIR", "HOW"), help="only write the model")
    parser.add_argument("--load", nargs=2, metavar=("DIR", "DEVICES"), help="only load it, in this process")
    options = parser.parse_args()
    if options.write:
        write(Path(options.write[0]), options.layers, FILES[options.write[1]])
        return
    if options.load:
        print(json.dumps(load(Path(options.load[0]), int(options.load[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        found = measured(Path(directory), options.layers)
    print(f"{'kept as':10}{'devices':>9}{'model MB':>10}{'peak MB':>9}{'peak/model':>12}")
    for (how, devices), one in found.items():
        model, peak = one["model"] / 1e6, one["peak"] / 1e6
        print(f"{how:10}{devices:9}{model:10.0f}{peak:9.0f}{peak / model:12.2f}")
    if any(one["peak"] > LIMIT * one["model"] for one in found.values()):
        sys.exit(f"above {LIMIT} times the model")


if __name__ == "__main__":
    main()
