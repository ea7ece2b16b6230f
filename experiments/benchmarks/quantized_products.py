"""Forms of a product with a matrix of bytes beside that of float32, on the CPU.

    python experiments/benchmarks/quantized_products.py [--rows 1 4] [--rounds 7] [--count 30]

The matrices are SmolLM2-135M's, `--count` of each shape in one program so that none stays in a cache, inputs first
(`in`, [inputs, outputs]) or outputs first (`out`). Forms take turns, and what is printed is float32's median time
over each form's: above 1 is faster. `convert` makes float32 of the bytes within the product, `sum` multiplies and
sums without a product of matrices, `bytes` rounds a row of activations to bytes and sums in 32 bits, `pieces` cuts
it into three bytes, as exact as float32; `pad` computes a lone row twice. `group` has bytes in groups of 64,
`nibbles` two to a byte. What came of it is in `jaxlm/quantize/products.py`.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.quantize.packing import pack
from jaxlm.quantize.products import in_pieces, integer_product, on_levels, product, steps

SHAPES = ((576, 1536), (1536, 576), (576, 576))
GROUP = 64


def multiply(x: Array, w: Array, dim: int) -> Array:
    """x times a matrix whose inputs are dimension `dim`."""
    kind = jnp.int32 if w.dtype == x.dtype == jnp.int8 else jnp.float32
    return jax.lax.dot_general(x, w, (((1,), (dim,)), ((), ())), preferred_element_type=kind)


def rounded(x: Array, w: Array, dim: int) -> Array:
    """Bytes times bytes."""
    step = steps(x, 8)
    return multiply(on_levels(x, step, 8), w, dim).astype(jnp.float32) * step


def padded(f: Callable, x: Array, w: Array) -> Array:
    """A lone row twice."""
    return f(jnp.concatenate([x, x]), w)[:1] if x.shape[0] == 1 else f(x, w)


def in_groups(x: Array, w: Array) -> Array:
    """Three bytes an activation, a scale a group."""
    return product(x, w, jnp.ones(w.shape[:2]), None, None, 8)


def alone(x: Array, w: Array) -> Array:
    """Three bytes an activation, a scale an output."""
    pieces, factors = in_pieces(x, 3)
    sums = integer_product(pieces.reshape(-1, x.shape[1]), w[None])[0].astype(jnp.float32)
    return jnp.sum(sums.reshape(3, x.shape[0], -1) * factors, axis=0)


FORMS: dict[str, tuple[str, Callable]] = {
    "float32 in": ("floats", functools.partial(multiply, dim=0)),
    "float32 out": ("turned floats", functools.partial(multiply, dim=1)),
    "convert in": ("bytes", lambda x, w: multiply(x, w.astype(jnp.float32), 0)),
    "convert out": ("turned", lambda x, w: multiply(x, w.astype(jnp.float32), 1)),
    "convert out pad": ("turned", functools.partial(padded, lambda x, w: multiply(x, w.astype(jnp.float32), 1))),
    "sum out": ("turned", lambda x, w: jnp.sum(x[:, None] * w[None].astype(jnp.float32), axis=-1)),
    "bytes in": ("bytes", functools.partial(rounded, dim=0)),
    "bytes in pad": ("bytes", functools.partial(padded, functools.partial(rounded, dim=0))),
    "bytes out": ("turned", functools.partial(rounded, dim=1)),
    "bytes out pad": ("turned", functools.partial(padded, functools.partial(rounded, dim=1))),
    "pieces out": ("turned", alone),
    "pieces group": ("groups", in_groups),
    "pieces nibbles": ("nibbles", lambda x, w: alone(x, w.codes())),
}


def forms_of(inputs: int, outputs: int, count: int) -> dict[str, list]:
    """The same matrices in every order of storage."""
    rng = np.random.default_rng(0)
    found: dict[str, list] = {
        name: [] for name in ("floats", "turned floats", "bytes", "turned", "groups", "nibbles")
    }
    for _ in range(count):
        codes = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
        turned = np.ascontiguousarray(codes.T)
        found["bytes"].append(jnp.asarray(codes))
        found["floats"].append(jnp.asarray(codes, jnp.float32))
        found["turned"].append(jnp.asarray(turned))
        found["turned floats"].append(jnp.asarray(turned, jnp.float32))
        grouped = turned.reshape(outputs, -1, GROUP).transpose(1, 0, 2)
        found["groups"].append(jnp.asarray(np.ascontiguousarray(grouped)))
        found["nibbles"].append(pack(jnp.asarray(turned >> 4), 4, ("mlp", "embed"), -2))
    return found


def main() -> None:
    """Prints a line for each shape, number of rows and form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    run = jax.jit(lambda f, x, ws: sum(jnp.sum(f(x, w)) for w in ws), static_argnums=0)
    for inputs, outputs in SHAPES:
        stored = forms_of(inputs, outputs, options.count)
        for rows in options.rows:
            x = jnp.asarray(np.random.default_rng(1).standard_normal((rows, inputs)), jnp.float32)
            times: dict[str, list[float]] = {name: [] for name in FORMS}
            for turn in range(options.rounds + 1):
                for name, (kind, form) in FORMS.items():
                    start = time.perf_counter()
                    jax.block_until_ready(run(form, x, stored[kind]))
                    if turn:  # the first compiles
                        times[name].append(time.perf_counter() - start)
            plain = statistics.median(times["float32 in"])
            print(f"{inputs} x {outputs}, rows {rows}: {1e6 * plain / options.count:.0f} us in float32", flush=True)
            for name, found in times.items():
                print(f"  {name:16} {plain / statistics.median(found):5.2f}", flush=True)


if __name__ == "__main__":
    main()
