"""Virtual tokens: learned keys and values of a layer, and learned vectors in front of a text.

They are of the segment that all documents of a row see (`layers.attention.mask.EVERYONE`), and see no document
themselves. Of a causal model one copy a row is therefore the same as one in front of each document.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention.mask import EVERYONE
from jaxlm.layers.cache import Dense, View
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.taps import Report
from jaxlm.parallel.layout import Axes


@struct.dataclass
class Prefix:
    """Keys as queries meet them, neither normalized nor turned, and their values (arXiv:2101.00190)."""

    learned_keys: Float[Array, "length kv_heads head"]
    learned_values: Float[Array, "length kv_heads head"]

    @property
    def length(self) -> int:
        """Number of keys; of a layer by itself, not of stacked ones."""
        return self.learned_keys.shape[0]

    def before(self, seen: View, call: Call) -> View:
        """They, then the tokens."""
        axes, rows = self.leaf_axes(), seen.keys.shape[0]

        def joined(name: str, tokens: Array) -> Array:
            own = call.layout.gather(getattr(self, name), axes[name]).astype(tokens.dtype)
            return jnp.concatenate([jnp.broadcast_to(own[None], (rows, *own.shape)), tokens], axis=1)

        zeros = jnp.zeros((rows, self.length), jnp.int32)
        return View(
            joined("learned_keys", seen.keys),
            joined("learned_values", seen.values),
            jnp.concatenate([zeros, seen.positions], axis=1),
            jnp.concatenate([zeros + EVERYONE, seen.segments], axis=1),
            shared=True,
        )

    def written(self, cache: Dense) -> Dense:
        """An empty cache with them in front: `cache.first` is their number."""
        keys = self.learned_keys.astype(cache.keys.dtype).transpose(1, 0, 2)[None]
        values = self.learned_values.astype(cache.values.dtype).transpose(1, 2, 0)[None]
        return cache.replace(
            keys=cache.keys.at[:, :, : self.length].set(keys),
            values=cache.values.at[..., : self.length].set(values),
            segments=cache.segments.at[:, : self.length].set(EVERYONE),
        )

    def unbiased(self, bias: Float[Array, "#row heads query key"]) -> Float[Array, "#row heads query key"]:
        """A bias of positions without any for them, which have none."""
        return bias.at[..., : self.length].set(0)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return dict.fromkeys(("learned_keys", "learned_values"), ("positions", "kv_heads", "head"))


@struct.dataclass
class Prompt:
    """Vectors that a decoder reads before the text, whose positions count on from theirs (arXiv:2104.08691)."""

    vectors: Float[Array, "length embed"]

    @property
    def length(self) -> int:
        """In tokens."""
        return self.vectors.shape[0]

    def positions(self) -> Int[Array, "1 length"]:
        """From 0."""
        return jnp.arange(self.length, dtype=jnp.int32)[None]

    def whole(self, dtype: Any, call: Call) -> Float[Array, "1 length embed"]:
        """The vectors as they are used."""
        return call.layout.gather(self.vectors, self.leaf_axes()["vectors"]).astype(dtype)[None]

    def followed(self, tokens: Tokens) -> Tokens:
        """Tokens with the positions that they have behind it."""
        prefix = None if tokens.prefix is None else tokens.prefix + self.length
        return dataclasses.replace(tokens, positions=tokens.positions + self.length, prefix=prefix)

    def before(
        self,
        x: Float[Array, "row pos embed"],
        vectors: Float[Array, "1 length embed"],
        tokens: Tokens,
        call: Call,
    ) -> tuple[Float[Array, "row prompted embed"], Tokens]:
        """It, then the stream and its tokens, whose adapters are kept.

        Raises UsageError where devices share a row: its places would no longer be what their layout deals out.
        """
        if call.layout.shards("tokens") > 1 and call.layout.parts("tokens") > 1:
            raise UsageError(
                "a model with a prompt: where.mesh.context and where.mesh.tensor spread rows over devices, and "
                "each would have a prompt of its own; use 1, or prefix_tuning"
            )
        rows = x.shape[0]
        x = jnp.concatenate([jnp.broadcast_to(vectors, (rows, *vectors.shape[1:])).astype(x.dtype), x], axis=1)

        def joined(value: int | Array, own: Array | None) -> Array | None:
            if own is None:
                return None
            virtual = jnp.broadcast_to(value, (rows, self.length)).astype(own.dtype)
            return jnp.concatenate([virtual, own], axis=1)

        return x, dataclasses.replace(
            tokens,
            ids=joined(0, tokens.ids),
            segments=joined(EVERYONE, tokens.segments),
            positions=joined(self.positions(), tokens.positions),
            prefix=joined(0, tokens.prefix),
        )

    def removed(self, x: Float[Array, "row prompted embed"], report: Report) -> tuple[Array, Report]:
        """The text's part of hidden states, and of activations that have positions."""
        taps = {
            name: tap if name.endswith(".mean_square") else tap[:, :, self.length :]
            for name, tap in report.taps.items()
        }
        return x[:, self.length :], report.replace(taps=taps)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"vectors": ("positions", "embed")}
