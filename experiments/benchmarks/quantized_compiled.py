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
    for _, times, body in module.scheduled():
        for one in body:
            inside = [module.computations[name] for name in one.called("calls")] if one.op == "fusion" else [[one]]
            for computation in inside:
                types = {each.name: each.type for each in [*body, *computation]}
                for each in computation:
                    if each.op in ("convolution", "dot"):
                        name, flops = _product(each, types)
                        found[name] += times * flops
    return found


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


def compiled(form: str, device: Any) -> dict[str, tuple[Any, hlo.Module]]:
    """(Memory, scheduled program) of `prompt` and `decode`, and bytes of the parameters under "parameters"."""
    import jax
    import jax.numpy as jnp
    from quantized import decode

    from jaxlm.config import PRECISIONS, Mesh
    from jaxlm.families.llama import llama32
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

    model = abstract(lambda: quantized(build(llama32("1b"), jax.random.key(0), precision), quantization(form)))
    reading, decoding = Call(layout, precision), Call(layout, precision, mode="decode")

    def prompt(model: Any, tokens: Any) -> Any:
        return model.logits(model(tokens, reading).hidden[:, -1], reading)

    apart = abstract(lambda: unstacked(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model)))
    cache = abstract(lambda: apart.empty_cache(ROWS, LENGTH, decoding))
    lowered = {
        "prompt": jax.jit(prompt).lower(model, tokens(1, LENGTH)),
        "decode": decode.lower(apart, (tokens(ROWS, 1), cache), call=decoding, count=DRAWN),
    }
    found: dict[str, Any] = {"parameters": sum(prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(model))}
    for name, one in lowered.items():
        done = one.compile()
        found[name] = done.memory_analysis(), hlo.parse(done.as_text())
    return found


def main() -> None:
    """Prints the parameters' bytes and both programs of each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    asked = topology.parse(options.topology)
    topology.environment(asked)
    device, first = topology.devices(asked)[0], {}
    for form in options.forms:
        found = compiled(form, device)
        size = found.pop("parameters")
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
