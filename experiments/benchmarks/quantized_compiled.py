"""What the TPU compiler makes of weights and activations in 8 bits: its products, bytes and cycles.

    pip install 'jaxlm[tpu]'            # brings the compiler; no TPU is needed
    python experiments/benchmarks/quantized_compiled.py [--topology v5e:2x2] [--forms bfloat16 w8a8 ...]

Llama 3.2 1B, whole on one chip, parameters in bfloat16, compiled in four forms and two programs: `prompt` reads a
row of 2,048 tokens, `decode` draws 64 tokens for each of 16 rows out of caches of 2,048. Products are those of the
scheduled program, loops multiplied out and fusions opened, by the formats of what they multiply and sum. Bytes are
those of the parameters as they lie in memory, and of what a program needs beside its arguments. Cycles are the
compiler's own estimate, of nothing that was timed.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from jaxlm.planning import hlo, topology

ROWS, LENGTH, DRAWN = 16, 2048, 64
FORMS = ("bfloat16", "int8", "w8a8", "w8a8-static")


def quantization(form: str) -> Any:
    """The blocks and the table of tokens in 8 bits, activations by token, by calibration, or as they are."""
    from jaxlm import config

    rules = (config.Rule(), config.Rule("^embedding$"))
    match form:
        case "bfloat16":
            return config.NoQuantization()
        case "int8":
            return config.Rounded(rules)
        case "w8a8":
            return config.Rounded(rules, activations=config.Dynamic())
        case "w8a8-static":
            # Of tokens' vectors, which the head multiplies, there is no calibration.
            return config.Rounded(rules[:1], activations=config.Static())


def products(module: hlo.Module) -> Counter[str]:
    """FLOPs of one execution by "left x right -> sum"."""
    found: Counter[str] = Counter()
    for name, times, _ in module.scheduled():
        for one, types in _opened(module, name):
            if one.op in ("convolution", "dot"):
                kind, flops = _product(one, types)
                found[kind] += times * flops
    return found


def _opened(module: hlo.Module, name: str) -> Iterator[tuple[hlo.Instruction, dict[str, str]]]:
    """Instructions of a computation, with those of its fusions, and the types of what is beside each."""
    body = module.computations[name]
    types = {one.name: one.type for one in body}
    for one in body:
        yield one, types
        if one.op == "fusion":
            for called in one.called("calls"):
                yield from _opened(module, called)


def _product(one: hlo.Instruction, types: dict[str, str]) -> tuple[str, int]:
    left, right = (hlo.arrays(types[name])[0] for name in one.operands[:2])
    kind, shape = hlo.arrays(one.type)[0]
    if one.op == "dot":
        dims = re.search(r"rhs_contracting_dims=\{([\d,]*)\}", one.attributes)[1]
        summed = prod(right[1][int(dim)] for dim in dims.split(",") if dim)
    else:
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)[1]
        # A batch of products is a convolution whose window slides over the batch: one place of it is real.
        window = re.search(r"window=\{size=([\dx]+)", one.attributes)
        slid = "lhs_dilate" in one.attributes or "pad" in one.attributes
        places = prod(map(int, window[1].split("x"))) if window and not slid else 1
        summed = right[1][labels.index("i")] * places
    return f"{left[0]} x {right[0]} -> {kind}", 2 * prod(shape) * summed


def compiled(form: str, kind: Any, device: Any) -> tuple[int, dict[str, tuple[Any, hlo.Module]]]:
    """Bytes of a model's parameters, and (memory, scheduled program) of `prompt` and `decode`."""
    import jax
    import jax.numpy as jnp

    from jaxlm.config import PRECISIONS, Mesh
    from jaxlm.layers.contracts import Call, Tokens
    from jaxlm.models import build
    from jaxlm.parallel.layout import Layout
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.quantize.build import quantized
    from jaxlm.sampling.loop import unstacked

    precision = PRECISIONS["bfloat16_all"]
    layout = Layout(make_mesh(Mesh(), [device]))
    whole = jax.sharding.SingleDeviceSharding(device)

    def abstract(make: Any) -> Any:
        shapes = jax.eval_shape(make)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)

    def tokens(rows: int, length: int) -> Any:
        return abstract(lambda: Tokens(*(jnp.zeros((rows, length), jnp.int32) for _ in range(3))))

    model = abstract(lambda: quantized(build(kind, jax.random.key(0), precision), quantization(form)))
    reading, decoding = Call(layout, precision), Call(layout, precision, mode="decode")

    def prompt(model: Any, tokens: Any) -> Any:
        return model.logits(model(tokens, reading).hidden[:, -1], reading)

    def decode(model: Any, state: Any) -> Any:
        def step(_: int, state: Any) -> Any:
            tokens, cache = state
            output = model(tokens, decoding, cache=cache)
            ids = jnp.argmax(model.logits(output.hidden[:, 0], decoding), axis=-1).astype(jnp.int32)
            return Tokens(ids[:, None], tokens.segments, tokens.positions + 1), output.cache

        return jax.lax.fori_loop(0, DRAWN, step, state)

    apart = abstract(lambda: unstacked(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model)))
    cache = abstract(lambda: apart.empty_cache(ROWS, LENGTH, decoding))
    lowered = {
        "prompt": jax.jit(prompt).lower(model, tokens(1, LENGTH)),
        "decode": jax.jit(decode, donate_argnums=1).lower(apart, (tokens(ROWS, 1), cache)),
    }
    programs = {name: one.compile() for name, one in lowered.items()}
    size = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(model))
    return size, {name: (one.memory_analysis(), hlo.parse(one.as_text())) for name, one in programs.items()}


def main() -> None:
    """Prints the parameters' bytes and both programs of each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    asked = topology.parse(options.topology)
    topology.environment(asked)
    device, first = topology.devices(asked)[0], {}
    from jaxlm.families.llama import llama32

    for form in options.forms:
        size, found = compiled(form, llama32("1b"), device)
        first.setdefault("parameters", size)
        print(f"{form}: parameters {size / 1e9:.3f} GB, {size / first['parameters']:.3f} of the first")
        for name, (memory, module) in found.items():
            cycles = module.cycles
            first.setdefault(name, cycles)
            flops = products(module)
            print(
                f"  {name}: {cycles / 1e6:.2f} M cycles, {first[name] / cycles:.2f} times as fast; "
                f"{memory.temp_size_in_bytes / 1e6:.0f} MB beside arguments; products of "
                f"{sum(flops.values()) / 1e9:.1f} GFLOP"
            )
            for kind, count in flops.most_common():
                print(f"    {kind:24}{100 * count / sum(flops.values()):6.1f} %", flush=True)


if __name__ == "__main__":
    main()
