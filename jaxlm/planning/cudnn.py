"""Tracing cuDNN attention on a machine without cuDNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

VERSION = 90_700
"""The version that the target configuration names (`h100_sxm.txtpb`), as cuDNN numbers it: 9.7.0."""


@contextmanager
def assumed(version: int = VERSION) -> Iterator[None]:
    """Within it jax takes cuDNN of this version to be installed.

    When attention by cuDNN is traced, jax 0.10 asks the installed library for its version (the function named
    below); for a GPU that is not there it need not be. The kernels' own plans are made where they run and are not
    checked here.
    """
    with mock.patch("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", return_value=version):
        yield
