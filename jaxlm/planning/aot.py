"""The real training step of an experiment, compiled for devices that are not there."""

from __future__ import annotations

import contextlib
import re
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.data import Labeled, Pairs
from jaxlm.config.distillation import LIKELY
from jaxlm.config.errors import Failure
from jaxlm.config.experiment import Experiment
from jaxlm.config.objective import columns
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.parallel.layout import Layout
from jaxlm.planning import cudnn
from jaxlm.planning.traced import product_flops
from jaxlm.train.setup import Setup, make_setup
from jaxlm.train.step import make_step


class DoesNotFit(Failure):
    """The compiler found more to keep in memory than there is."""

    def __init__(self, message: str, needed: float, available: float):
        super().__init__(message)
        self.needed, self.available = needed, available


@dataclass(frozen=True)
class Compiled:
    """What compiling a step has shown. Bytes are those of one device."""

    mesh: dict[str, int]
    text: str
    """The scheduled HLO."""
    parts: dict[str, int]
    """Bytes of the step's arguments by what they are."""
    arguments: int
    temporaries: int
    peak: int
    """As the compiler counts it; that it compiled at all is the better proof that it fits."""
    host: int
    """Bytes offloaded to the host's memory."""
    aliased: int
    """Bytes of results that take the place of arguments."""
    outputs: int
    products: float
    """FLOPs of all matrix products of the step as it was traced, on all devices, kernels included."""
    lower_seconds: float
    compile_seconds: float
    process_bytes: int
    """The most memory that this process has used until now."""


def abstract_batch(experiment: Experiment, layout: Layout) -> Batch:
    """Shapes, dtypes and shardings of a global batch, without data."""
    shape = (experiment.train.batch, experiment.train.length)

    def array(dtype: Any, *axes: str) -> jax.ShapeDtypeStruct:
        dims = shape[: len(axes)]
        return jax.ShapeDtypeStruct(dims, dtype, sharding=layout.sharding(axes, dims))

    def each(dtype: Any, count: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*shape, count), dtype, sharding=layout.sharding(("row", "tokens"), shape))

    def tokens() -> jax.ShapeDtypeStruct:
        return array(jnp.int32, "row", "tokens")

    wanted = columns(experiment.objective)
    more = {"words": wanted.words, "ends": wanted.ends, "labels": isinstance(experiment.data, Labeled | Pairs)}
    extra = {name: tokens() for name, told in more.items() if told}
    if wanted.likeliest:
        extra |= {name: each(dtype, wanted.likeliest) for name, dtype in zip(LIKELY, (jnp.float32, jnp.int32))}
    return Batch(
        inputs=Tokens(tokens(), tokens(), tokens()),
        targets=tokens(),
        weights=array(jnp.float32, "row", "tokens"),
        rows=array(jnp.int32, "row"),
        documents=tokens(),
        extra=extra,
    )


def compile_step(experiment: Experiment, devices: Sequence[jax.Device]) -> Compiled:
    """Compiles the step that `jaxlm run` would, for all the devices.

    Raises DoesNotFit where it needs more memory than a device has, UsageError where experiment, mesh, flags and
    devices disagree.
    """
    start = time.perf_counter()
    setup = make_setup(experiment, devices)
    batch = abstract_batch(experiment, setup.call.layout)
    step = make_step(
        setup.objective,
        setup.optimizer,
        setup.call,
        seed=experiment.train.seed,
        micro_batches=experiment.where.micro_batches,
        clip=experiment.train.clip,
        ema=experiment.train.ema,
    )
    parts = _parts(setup, batch)
    places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    gpu = devices[0].platform in ("gpu", "cuda")
    with cudnn.assumed() if gpu else contextlib.nullcontext():
        traced = jax.jit(step, donate_argnums=0, out_shardings=(places, None)).trace(setup.abstract, batch)
        lowered = traced.lower()
    middle = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=setup.options)
    except jax.errors.JaxRuntimeError as error:
        raise _refused(error, sum(parts.values())) from None
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    return Compiled(
        mesh=dict(setup.call.layout.mesh.shape),
        text=compiled.as_text(),
        parts=parts,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        host=memory.host_temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        products=product_flops(traced.jaxpr),
        lower_seconds=middle - start,
        compile_seconds=end - middle,
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _parts(setup: Setup, batch: Batch) -> dict[str, int]:
    """Bytes of a device's share of the arguments."""
    state = setup.abstract
    named = {
        "parameters": (state.model, state.frozen),
        "optimizer": state.optimizer,
        "average": state.ema,
        "batch": batch,
    }
    return {name: sum(_share(leaf) for leaf in jax.tree.leaves(tree)) for name, tree in named.items()}


def _share(leaf: jax.ShapeDtypeStruct) -> int:
    return prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEEDED = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")


def does_not_fit(needed: float, available: float) -> DoesNotFit:
    """The refusal of a step that needs more bytes than a device has."""
    needs, has = needed / 2**30, available / 2**30
    message = f"does not fit: a device needs {needs:.1f} GiB and has {has:.1f}, {needs - has:.1f} GiB too little"
    return DoesNotFit(message, needed, available)


def _refused(error: Exception, arguments: int) -> Failure:
    """What a failed compilation means: by how much it does not fit, or the compiler's first lines."""
    text = str(error)
    found = _NEEDED.search(text) or _USED.search(text)
    if found:
        needed = float(found[1]) * _UNITS[found[2]] + (arguments if "temporaries" in text else 0)
        return does_not_fit(needed, float(found[3]) * _UNITS[found[4]])
    lines = [line for line in text.splitlines() if line.strip()][:3]
    return Failure("the compiler refuses the step: " + " ".join(lines)[:600])
