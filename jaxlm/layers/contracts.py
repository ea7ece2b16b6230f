"""What the rooms hand to each other. All structs are pytrees; `Call` is static."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm.config import Pipeline, Precision
from jaxlm.layers.cache import Cache
from jaxlm.parallel.layout import Layout

RowKeys = Key[Array, "row"]
"""One key a row: what is drawn for a row depends on (seed, step, site, global row), never on array shapes."""


@struct.dataclass
class Tokens:
    """Packed token rows. Segment 0 is padding; documents count from 1 within a row."""

    ids: Int[Array, "row pos"]
    segments: Int[Array, "row pos"]
    positions: Int[Array, "row pos"]
    adapters: Int[Array, "row"] | None = None
    """Which of several adapters each row uses, -1 for none: see `jaxlm.adapters.several`."""
    types: Int[Array, "row pos"] | None = None
    """Rows of an encoder's table of token types, such as the sentence of a pair; None is all 0."""
    prefix: Int[Array, "row pos"] | None = None
    """The position where the prefix of each token's document ends, the same at all of them: a decoder sees the
    tokens before it from both sides (`layers.attention.mask.Mask`). None: every token sees those up to itself.
    """

    def by_row(self) -> Tokens:
        """Every array begins with the rows: see `layers.stack.Context`."""
        return self

    def of_rows(self, rows: Tokens) -> Tokens:
        """Some of the rows."""
        return rows


@struct.dataclass
class Batch:
    """A training batch. `rows` and `documents` are global ids, the keys of randomness."""

    inputs: Tokens
    targets: Int[Array, "row pos"]
    weights: Float[Array, "row pos"]
    rows: Int[Array, "row"]
    documents: Int[Array, "row pos"]
    source: Tokens | None = None
    """The encoder's side, for encoder-decoders."""
    extra: dict[str, Array] = field(default_factory=dict)
    """Labels, rewards, old log-probabilities and the like: [row], or [row, pos, ...]."""


@dataclass(frozen=True)
class Call:
    """How a model is computed, never what. Hashable, so that it can be a static argument of jit."""

    layout: Layout
    precision: Precision = Precision()
    attention: str = "auto"
    recurrence: Literal["auto", "scan", "chunked"] = "auto"
    layers: Literal["scan", "unroll"] = "scan"
    remat: str = "none"
    pipeline: Pipeline = Pipeline()
    mode: Literal["train", "prefill", "decode"] = "train"
    taps: tuple[str, ...] = ()
    """Names of activations to return, as `Output.taps`; `<name>.mean_square` returns that only. Of attention there
    are "queries", "keys" and "values" before positions turn them, and "scores" (in the xla attention only).
    """


@struct.dataclass
class Memory:
    """What an encoder hands to the decoder's cross-attention."""

    hidden: Float[Array, "row pos embed"]
    segments: Int[Array, "row pos"]
    positions: Int[Array, "row pos"]
    terms: dict[str, Array] = field(default_factory=dict)
    """The encoder's auxiliary sums, which the decoder adds to its own."""


@struct.dataclass
class Output:
    """What a model returns; logits are apart, so that a loss can compute them in chunks."""

    hidden: Float[Array, "row pos embed"]
    cache: Cache | None = None
    terms: dict[str, Array] = field(default_factory=dict)
    """Auxiliary sums over layers and tokens, such as a router's load balance; see `objectives.auxiliary`."""
    taps: dict[str, Array] = field(default_factory=dict)
    """Activations that `Call.taps` asked for, stacked over layers: [layer, ...]."""
    trunk: Float[Array, "row pos embed"] | None = None
    """What the last layer was given, of models with further heads: where those begin."""


@runtime_checkable
class Model(Protocol):
    """What every model is: a pytree of parameters with these pure methods."""

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states after the last norm; `key` = None is without dropout."""
        ...

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """The encoder's half of an encoder-decoder; other models refuse by name."""
        ...

    def scorer(self, call: Call) -> Callable[[Float[Array, "... embed"]], Float[Array, "... vocab"]]:
        """Hidden states -> scores of the next token (of the token in place, for encoders), the head ready for many
        calls: a loss takes it once and scores its tokens in chunks.
        """
        ...

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """The scores of one call; where a program a device spreads the vocabulary, the device's own."""
        ...

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """A cache for `length` tokens a row; encoders refuse by name."""
        ...
