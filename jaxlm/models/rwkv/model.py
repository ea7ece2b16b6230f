"""RWKV: a recurrent language model whose state has one size, whatever has been read."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.paths import option_name
from jaxlm.config.recurrent import Recurrent
from jaxlm.layers import cache as caches
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import LayerNorm, initial_norm
from jaxlm.layers.projection import Weight, look_up
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.layers.taps import tapped
from jaxlm.models import heads
from jaxlm.models.rwkv import v4, v5
from jaxlm.models.rwkv.parts import Stream
from jaxlm.models.rwkv.v7 import initial_stack7


@struct.dataclass
class Rwkv:
    """Token embedding and norm, layers, norm, head."""

    embedding: Weight
    embedding_norm: LayerNorm
    blocks: Stack
    norm: LayerNorm
    head: Weight | None
    config: Recurrent = struct.field(pytree_node=False)

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: caches.Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states after the last norm; positions are not used. Raises UsageError for a memory or a prefix."""
        if memory is not None:
            raise UsageError(f"{self._name} has no cross-attention: it takes no memory")
        if inputs.prefix is not None:
            raise UsageError(f"{self._name} reads from left to right only: it sees no prefix from both sides")
        self._check(call)
        x = self.embedding_norm(look_up(self.embedding, inputs.ids, call))
        x = dropout(x, self.config.dropout, at(key, "embedding.dropout"), call.layout)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        taps = tapped(call, embedding=x[None])
        layers = None if cache is None else cache.layers
        x, layers, report = self.blocks(x, call.layout.enter(inputs), call, caches=layers, key=at(key, "blocks"))
        cache = None if cache is None else cache.advance(layers, inputs.segments)
        hidden = x.hidden if isinstance(x, Stream) else x
        return Output(self.norm(hidden), cache, taps=taps | report.taps)

    @property
    def _name(self) -> str:
        return option_name(type(self.config))

    def _check(self, call: Call) -> None:
        if call.layout.shards("pos") > 1:
            raise UsageError(f"where.mesh.context: {self._name} reads rows from left to right on one device; use 1")
        if call.layout.parts("layers") > 1 and isinstance(self.config, config.Rwkv7):
            raise UsageError("where.mesh.pipeline: every layer of rwkv7 reads the first one's values; use 1")

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """A recurrent model has no encoder: raises UsageError."""
        raise UsageError(f"{self._name} has no encoder: use an encoder_decoder model")

    def scorer(self, call: Call) -> heads.Scorer:
        """Hidden states -> scores; see `heads.scorer`."""
        return heads.scorer(self.embedding, self.head, self.config.head, call)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """Scores of the next token."""
        return self.scorer(call)(hidden)

    def empty_cache(self, rows: int, length: int, call: Call) -> caches.Cache:
        """States of one size, whatever `length`."""
        layers = (layer.empty_cache(rows, length, call.precision.compute) for layer in self.blocks.layers())
        return caches.Cache(tuple(layers), jnp.zeros(rows, jnp.int32))


def initial_rwkv(model: Recurrent, init: Initial) -> Rwkv:
    """As released: layers begin as the identity, token vectors so small that the norm after them scales them up.

    What differs between layers and features, such as decays and shifts, is spread over them from the start.
    """
    own = init.at("blocks")
    match model:
        case config.Rwkv4():
            blocks = initial_stack(model, model.layers, v4.initial_layer, own)
        case config.Rwkv5() | config.Rwkv6():
            blocks = initial_stack(model, model.layers, v5.initial_layer, own)
        case config.Rwkv7():
            blocks = initial_stack7(model, own)
    return Rwkv(
        embedding=_embedding(model, init),
        embedding_norm=initial_norm(model.norm, model.embed, init.dtype),
        blocks=blocks,
        norm=initial_norm(model.norm, model.embed, init.dtype),
        head=_head(model, init),
        config=model,
    )


def _embedding(model: Recurrent, init: Initial) -> Weight:
    if isinstance(model.head, config.Tied):
        return heads.initial_embedding(model.vocab, model.embed, init)
    return init.dense("embedding", (model.vocab, model.embed), ("vocab", "embed"), std=1e-4 / 3**0.5)


def _head(model: Recurrent, init: Initial) -> Weight | None:
    match model.head:
        case config.Tied():
            return None
        case config.Untied(bias=bias):
            shape = (model.embed, model.vocab)
            return init.dense("head", shape, ("embed", "vocab"), scale=0.5, bias=bias == "all")
