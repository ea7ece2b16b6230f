"""An encoder whose memory a causal decoder attends to (Vaswani et al. 2017, arXiv:1706.03762)."""

from __future__ import annotations

from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.block import Context, initial_block, initial_last_norm
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import Norm
from jaxlm.layers.positions import Position, heads_of, initial_position
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.models import heads
from jaxlm.models.decoder import Decoder, initial_decoder, initial_embedding_norm


@struct.dataclass
class EncoderDecoder:
    """One embedding and one position encoding for both halves; they live in the decoder.

    The encoder has tables of its own: of biases of distances always, of learned positions where the config says so.
    """

    encoder: Stack
    encoder_norm: Norm | None
    decoder: Decoder
    encoder_position: Position | None = None
    encoder_embedding_norm: Norm | None = None
    config: config.EncoderDecoder = struct.field(pytree_node=False, kw_only=True)

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """The decoder's hidden states; after a first call with a cache, the memory is in the cache."""
        if memory is None and (cache is None or cache.layers[0].cross is None):
            raise UsageError("an encoder-decoder needs the memory that encode(source) returns")
        return self.decoder(inputs, call, memory=memory, cache=cache, key=at(key, "decoder"))

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """The memory of the source's tokens."""
        position = self.decoder.position if self.encoder_position is None else self.encoder_position
        x = self.decoder.embedded(source, position, self.encoder_embedding_norm, call)
        x = dropout(x, self.decoder.config.dropout, at(key, "encoder.dropout"), call.layout)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        context = Context.of(source, position, call)
        x, _, report = self.encoder(x, context, call, key=at(key, "encoder"))
        x = x if self.encoder_norm is None else self.encoder_norm(x)
        return Memory(x, source.segments, source.positions, report.terms)

    def scorer(self, call: Call) -> heads.Scorer:
        """Hidden states -> scores; see `heads.scorer`."""
        return self.decoder.scorer(call)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """Scores of the next token."""
        return self.decoder.logits(hidden, call)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """A cache for `length` target tokens a row; the first call adds the memory's keys and values."""
        return self.decoder.empty_cache(rows, length, call)


def initial_encoder_decoder(model: config.EncoderDecoder, init: Initial) -> EncoderDecoder:
    """Both halves, initialized as an encoder and a decoder are by themselves."""
    half = config.Decoder(
        vocab=model.vocab,
        embed=model.embed,
        layers=model.decoder_layers,
        block=model.block,
        position=model.position,
        norm=model.norm,
        head=model.head,
        dropout=model.dropout,
        embedding=model.embedding,
    )
    scale = (2 * model.encoder_layers) ** -0.5

    def block(kind: config.Block, init: Initial):
        return initial_block(kind, model, init, causal=False, cross=False, scale=scale)

    return EncoderDecoder(
        encoder=initial_stack(model.block, model.encoder_layers, block, init.at("encoder")),
        encoder_norm=initial_last_norm(model, model.encoder_layers, init),
        decoder=initial_decoder(half, init.at("decoder"), cross=True),
        encoder_position=_initial_position(model, init.at("encoder_position")),
        encoder_embedding_norm=initial_embedding_norm(model, init),
        config=model,
    )


def _initial_position(model: config.EncoderDecoder, init: Initial) -> Position | None:
    """What the encoder does not share with the decoder: its distances lie on both sides.

    Raises UsageError for a table of each half's where positions have none.
    """
    match model.position, model.tables:
        case (config.RelativeBias(), _) | (config.Learned(), "each"):
            return initial_position(model.position, model.embed, init, heads_of(model.block))
        case _, "each":
            raise UsageError('model.tables="each": only learned positions have tables; use "shared"')
        case _:
            return None
