"""A bidirectional model whose head predicts the token in place (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.block import Context, initial_block
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.positions import Position, heads_of, initial_position
from jaxlm.layers.projection import Weight, look_up
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.models import heads


@struct.dataclass
class Encoder:
    """Token embedding, bidirectional blocks, norm, head."""

    embedding: Weight
    position: Position
    blocks: Stack
    norm: Norm
    head: Weight | None
    config: config.Encoder = struct.field(pytree_node=False)

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states after the last norm; an encoder has no cache and no memory."""
        if cache is not None or memory is not None:
            raise UsageError("an encoder sees its whole input at once: it takes neither a cache nor a memory")
        x = look_up(self.embedding, inputs.ids, call)
        x = self.position.embed(x, inputs.positions, call)
        x = dropout(x, self.config.dropout, at(key, "embedding.dropout"), call.layout)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        x, _, report = self.blocks(x, Context.of(inputs, self.position, call), call, key=at(key, "blocks"))
        return Output(self.norm(x), terms=report.terms, taps=report.taps)

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """The hidden states as a memory for another model's cross-attention."""
        output = self(source, call, key=key)
        return Memory(output.hidden, source.segments, source.positions, output.terms)

    def scorer(self, call: Call) -> heads.Scorer:
        """Hidden states -> scores; see `heads.scorer`."""
        return heads.scorer(self.embedding, self.head, self.config.head, call)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """Scores of the token in place."""
        return self.scorer(call)(hidden)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """An encoder does not generate: raises UsageError."""
        raise UsageError(
            "an encoder predicts tokens in place and does not generate: use a decoder, an encoder_decoder or rwkv4"
        )


def initial_encoder(model: config.Encoder, init: Initial) -> Encoder:
    """Kernels of variance 1 / inputs; those that write to the residual stream divided by sqrt(2 layers)."""
    scale = (2 * model.layers) ** -0.5

    def block(kind: config.Block, init: Initial):
        return initial_block(kind, model, init, causal=False, cross=False, scale=scale)

    return Encoder(
        embedding=heads.initial_embedding(model.vocab, model.embed, init),
        position=initial_position(model.position, model.embed, init.at("position"), heads_of(model.block)),
        blocks=initial_stack(model.block, model.layers, block, init.at("blocks")),
        norm=initial_norm(model.norm, model.embed, init.dtype),
        head=heads.initial_head(model.head, model.vocab, model.embed, init),
        config=model,
    )
