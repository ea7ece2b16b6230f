"""Tracing cuDNN attention on a machine without cuDNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    made where they run and are not checked here.
    """

    def at_least(wanted: str) -> bool:
        return capability >= tuple(map(int, wanted.split(".")))

    def equal(wanted: str) -> bool:
        return capability == tuple(map(int, wanted.split(".")))

    module = "jax._src.cudnn.fused_attention_stablehlo"
    with (
        mock.patch(f"{module}.check_cudnn_version", return_value=version),
        mock.patch(f"{module}.check_compute_capability", at_least),
        mock.patch(f"{module}.is_cuda_compute_capability_equal", equal),
    ):
        yield
