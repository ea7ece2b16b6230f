"""Who may attend to whom, from positions and segments alone."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

EVERYONE = -1
"""The segment of keys that all documents of a row see: learned ones, or those of learned vectors in front."""


@struct.dataclass
class Mask:
    """A query sees a key of its own segment; if causal, not after it, unless it is in the segment's prefix; with a
    window, at most window - 1 from it, on either side.

    Segment 0 is padding: it is seen by nobody, and sees nobody.
    """

    q_positions: Int[Array, "row query"]
    k_positions: Int[Array, "row key"]
    q_segments: Int[Array, "row query"]
    k_segments: Int[Array, "row key"]
    causal: bool = struct.field(pytree_node=False, default=True)
    window: int | None = struct.field(pytree_node=False, default=None)
    aligned: bool = struct.field(pytree_node=False, default=False)
    """The keys are the queries' own tokens in the row's order: if causal, none is seen from before its place."""
    prefix: Int[Array, "row query"] | None = None
    """The position where the prefix of each query's segment ends (Raffel et al. 2019, arXiv:1910.10683, figure 3);
    None: there is none. It belongs to queries, so that a cache need not know of it. Only causal masks have one.
    """

    shared: bool = struct.field(pytree_node=False, default=False)
    """Whether keys of the segment `EVERYONE` are among them: every query but padding sees them, whatever its
    position and window; queries of that segment see each other only.
    """

    def block(self, queries: slice, keys: slice) -> Mask:
        """The mask of some queries and some keys."""
        return dataclasses.replace(
            self,
            q_positions=self.q_positions[:, queries],
            k_positions=self.k_positions[:, keys],
            q_segments=self.q_segments[:, queries],
            k_segments=self.k_segments[:, keys],
            aligned=False,
            prefix=None if self.prefix is None else self.prefix[:, queries],
        )

    def dense(self) -> Bool[Array, "row query key"]:
        """Everything at once."""
        q, k = self.q_positions[:, :, None], self.k_positions[:, None, :]
        q_segments, k_segments = self.q_segments[:, :, None], self.k_segments[:, None, :]
        seen = (q_segments == k_segments) & (k_segments != 0 if self.shared else k_segments > 0)
        if self.causal:
            last = q if self.prefix is None else jnp.maximum(q, self.prefix[:, :, None] - 1)
            seen &= k <= last
        if self.window is not None:
            seen &= jnp.abs(q - k) < self.window
        return seen | ((k_segments == EVERYONE) & (q_segments > 0)) if self.shared else seen
