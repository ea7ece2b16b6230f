"""A table of token vectors in few bits, each with scales of its own: looked up and multiplied as it is stored."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Activations, Format, NoActivations
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import is_transposed
from jaxlm.layers.projection import Dense, Weight
from jaxlm.parallel.layout import Axes
from jaxlm.quantize.packing import pack
from jaxlm.quantize.weight import Quantized


@struct.dataclass
class Table:
    """A [vocab, embed] weight by its transpose, with which a tied head multiplies: tokens are its outputs."""

    transpose: Quantized
    bias: None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, weight: Weight, format: Format, activations: Activations = NoActivations()) -> Table:
        """A table rounded to the nearest. Raises UsageError for groups that do not divide a token's features."""
        turned = Dense(weight.dense().T, None, weight.axes[::-1], 1)
        return cls(Quantized.of(turned, format, activations))

    @property
    def axes(self) -> Axes:
        """Those of the table."""
        return self.transpose.axes[::-1]

    @property
    def inputs(self) -> int:
        """Tokens, as of any table."""
        return 1

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """Scores of tokens. Raises UsageError for a product that sums over tokens."""
        if not is_transposed(spec):
            raise UsageError("a table of token vectors in few bits scores tokens: nothing is summed over them")
        operands, result = spec.split("->")
        left, (*tokens, features) = operands.split(",")[0], operands.split(",")[1]
        return self.transpose.dot(x, f"{left},{features}{''.join(tokens)}->{result}", call)

    def leaf_axes(self) -> dict[str, Axes]:
        """It has no arrays of its own."""
        return {}

    def dense(self) -> Float[Array, "vocab embed"]:
        """The rounded table in float32."""
        return self.transpose.dense().T

    def rows(self, ids: Int[Array, "..."], call: Call) -> Float[Array, "... embed"]:
        """The vectors of tokens in float32; only theirs are made of codes."""
        layout, vocab = call.layout, self.axes[0]
        used, split = self.transpose._gathered(call), layout.parts(vocab) > 1
        own = layout.enter(ids) - layout.index(vocab) * used._outputs()[0] if split else ids
        there = (own >= 0) & (own < used._outputs()[0])
        flat = jnp.where(there, own, 0).reshape(-1)
        few = used.replace(
            codes=pack(jnp.take(used.codes.codes(), flat, axis=-2), 8, used.codes.axes, used.codes.dim),
            scale=_of(used.scale, flat),
            zero=None if used.zero is None else _of(used.zero, flat),
        )
        found = few._dense().T.reshape(*ids.shape, -1)
        return layout.reduce(jnp.where(there[..., None], found, 0.0), (vocab,)) if split else found


def _of(vector: Float[Array, "..."] | Int[Array, "..."], tokens: Int[Array, "token"]) -> Array:
    """Scales or zeros of some outputs, which are the last dimension where there is any."""
    return jnp.take(vector, tokens, axis=-1) if vector.ndim else vector
