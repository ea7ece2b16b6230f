"""Kernels of a mixture of experts."""

from __future__ import annotations

from typing import Any

from flax import struct
from jaxtyping import Array, Float

from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import Axes


@struct.dataclass
class Kernel:
    """A matrix that only its own mixture multiplies with.

    It is no `Weight`: adapters and quantization pass it by, as one scale or one low-rank pair for all experts would
    not do, and a rounded router chooses other experts.
    """

    kernel: Float[Array, "..."]
    axes: Axes = struct.field(pytree_node=False)

    def gathered(self, dtype: Any, call: Call) -> Float[Array, "..."]:
        """The kernel as it is used, in a dtype."""
        return call.layout.gather(self.kernel.astype(dtype), self.axes)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"kernel": self.axes}
