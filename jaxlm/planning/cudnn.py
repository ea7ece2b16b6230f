"""Tracing cuDNN attention on a machine without cuDNN."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any
from unittest import mock

VERSION = 90_700
"""The version that the target configuration names (`h100_sxm.txtpb`), as cuDNN numbers it: 9.7.0."""
CAPABILITY = (9, 0)
"""Compute capability of an H100."""


@contextmanager
def assumed(version: int = VERSION, capability: tuple[int, int] = CAPABILITY) -> Iterator[None]:
    """Within it jax takes cuDNN of this version and a GPU of this compute capability to be there.

    When attention by cuDNN is traced, jax 0.10 asks the installed library for its version and the GPU for its
    capability (the functions named below); for a GPU that is not there it need not be. The kernels' own plans are
    made where they run and are not checked here. What the backward pass takes as its workspace, cuDNN tells
    XLA only there: here `workspace` does.
    """
    from jax._src.interpreters import mlir

    custom_call = mlir.custom_call

    def at_least(wanted: str) -> bool:
        return capability >= tuple(map(int, wanted.split(".")))

    def equal(wanted: str) -> bool:
        return capability == tuple(map(int, wanted.split(".")))

    module = "jax._src.cudnn.fused_attention_stablehlo"
    with (
        mock.patch(f"{module}.check_cudnn_version", return_value=version),
        mock.patch(f"{module}.check_compute_capability", at_least),
        mock.patch(f"{module}.is_cuda_compute_capability_equal", equal),
        mock.patch("jax._src.interpreters.mlir.custom_call", functools.partial(_with_workspace, custom_call)),
    ):
        yield


def workspace(normalizers: Sequence[int], head: int, grouped: bool) -> int:
    """Bytes that the backward pass of packed documents takes besides its results, on an H100 (cuDNN 9).

    Arrays of [slot, heads, pos], whole rows for each document of a pass: the gradients of queries in float32,
    one number for each query, and where heads share keys, 16-bit gradients of keys and values for each head. So for
    heads of 64 in groups it is 12,985,615,104 bytes where `normalizers` is (12 * 16, 32, 4096), all but 50 kB.
    """
    return 4 * prod(normalizers) * (head + 1 + (head if grouped else 0))


def _with_workspace(custom_call: Callable[..., Any], name: str, **options: Any) -> Any:
    """`custom_call`, where that of attention's backward pass has a workspace; its last result, else of no bytes."""
    if "fmha" in name and name.endswith("Backward"):
        from jax._src.lib.mlir import ir

        query, key, _, normalizers, *_ = (ir.RankedTensorType(one.type).shape for one in options["operands"])
        *results, nothing = options["result_types"]
        size = workspace(normalizers, query[-1], grouped=query[2] != key[2])
        there = ir.RankedTensorType.get((size,), ir.RankedTensorType(nothing).element_type)
        options["result_types"] = [*results, there]
    return custom_call(name, **options)
