"""A causal language model (Radford et al. 2018), in the parts its config names."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.parametrization import score_scale, times_base
from jaxlm.layers.block import Block, Context, initial_block, initial_last_norm
from jaxlm.layers.cache import Cache, LayerCache
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.positions import Position, heads_of, initial_position
from jaxlm.layers.projection import Weight, look_up
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.layers.taps import Report, tapped
from jaxlm.layers.virtual import Prompt
from jaxlm.models import heads


@struct.dataclass
class Decoder:
    """Token embedding, normalized or not, blocks, norm, head.

    Of Gloeckle et al. 2024 (arXiv:2404.19737, section 2) the trunk is all blocks but the last, and that is the head
    of the next token; `ahead` are the other heads, each a block that begins where the last one does.
    """

    embedding: Weight
    position: Position
    blocks: Stack
    norm: Norm | None
    head: heads.Head
    config: config.Decoder = struct.field(pytree_node=False)
    embedding_norm: Norm | None = None
    classifier: heads.Classifier | None = None
    ahead: tuple[Block, ...] = ()
    prompt: Prompt | None = None

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states after the last norm; with a cache, `inputs` are the tokens after those it holds.

        Raises UsageError for a memory that no layer attends to.
        """
        if memory is not None and not self.blocks.crosses:
            raise UsageError("a decoder by itself has no cross-attention: it takes no memory")
        prompt = self.prompt if cache is None else None  # a cache begins with it
        inputs = inputs if self.prompt is None else self.prompt.followed(inputs)
        x = self.embedded(inputs, self.position, self.embedding_norm, call)
        x = dropout(x, self.config.dropout, at(key, "embedding.dropout"), call.layout)
        if prompt is not None:
            x, inputs = self._prompted(x, inputs, call)
        shared = prompt is not None
        x = call.layout.constrain(x, ("row", "pos", "features"))
        taps = tapped(call, embedding=x[None])
        lengths = None if cache is None else cache.lengths
        context = Context.of(inputs, self.position, call, memory=memory, lengths=lengths, shared=shared)
        layers = None if cache is None else cache.layers
        x, layers, report = self.blocks(x, context, call, caches=layers, key=at(key, "blocks"))
        cache = None if cache is None else cache.advance(layers, inputs.segments)
        if prompt is not None:
            x, report = prompt.removed(x, report)
        encoder = Report() if memory is None else Report(terms=memory.terms)
        x = x if self.norm is None else self.norm(x)
        trunk = report.before_last if self.ahead else None
        return Output(x, cache, Report.join([encoder, report]).terms, taps | report.taps, trunk)

    def _prompted(
        self, x: Float[Array, "row pos embed"], inputs: Tokens, call: Call
    ) -> tuple[Float[Array, "row prompted embed"], Tokens]:
        """The stream and its tokens behind the prompt; one copy in each row."""
        vectors = self.position.embed(self.prompt.whole(x.dtype, call), self.prompt.positions(), call)
        vectors = vectors if self.embedding_norm is None else self.embedding_norm(vectors)
        return self.prompt.before(x, vectors, inputs, call)

    def further(
        self,
        trunk: Float[Array, "row pos embed"],
        number: int,
        inputs: Tokens,
        call: Call,
        *,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states of head `number`, counted from 0, after the last norm: of the token `number` + 2 ahead.

        `trunk` is the `Output.trunk` of the same inputs. There are no taps.
        """
        context = Context.of(inputs, self.position, call)
        # It is no part of a scan, where its recomputation could not be taken for the first computation.
        call = dataclasses.replace(call, layers="unroll", taps=())
        head = Stack((self.ahead[number],), (), (), 0)
        x, _, report = head(trunk, context, call, key=at(at(key, "ahead"), number))
        return Output(x if self.norm is None else self.norm(x), None, report.terms)

    def embedded(
        self, inputs: Tokens, position: Position, norm: Norm | None, call: Call
    ) -> Float[Array, "row pos embed"]:
        """Token vectors with these positions and behind this norm: the decoder's own, or its encoder's."""
        x = look_up(self.embedding, inputs.ids, call)
        if isinstance(self.config.embedding, config.Scaled):
            # The root is rounded to the stream's format first, as those who train with it do.
            x = x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)
        x = position.embed(x, inputs.positions, call)
        return x if norm is None else norm(x)

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """A decoder has no encoder: raises UsageError."""
        raise UsageError("a decoder has no encoder: use an encoder_decoder model")

    def scorer(self, call: Call) -> heads.Scorer:
        """Hidden states -> scores; see `heads.scorer`."""
        multiplier = 1 / times_base(self.config)
        return heads.scorer(self.embedding, self.head, self.config.head, call, multiplier=multiplier)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """Scores of the next token."""
        return self.scorer(call)(hidden)

    def classify(self, features: Float[Array, "... embed"], call: Call) -> Float[Array, "... labels"]:
        """Scores of labels, of what `models.pooling` makes of hidden states; see `heads.classified`."""
        return heads.classified(self.classifier, features, call)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """A cache for `length` tokens a row, in the compute format."""
        dtype = call.precision.compute
        layers = tuple(layer.empty_cache(rows, length, dtype) for layer in self.blocks.layers())
        lengths = jnp.zeros(rows, jnp.int32)
        return Cache(layers if self.prompt is None else self._read_prompt(rows, length, call), lengths)

    def _read_prompt(self, rows: int, length: int, call: Call) -> tuple[LayerCache, ...]:
        """Every layer's cache with the prompt's keys and values in front of the slots of the text."""
        first, dtype = self.prompt.length, call.precision.compute
        layers = (layer.empty_cache(rows, length + first, dtype) for layer in self.blocks.layers())
        layers = tuple(one.replace(attention=one.attention.replace(first=first)) for one in layers)
        nothing = jnp.zeros((rows, 0), jnp.int32)
        empty = jnp.zeros((rows, 0, self.config.embed), dtype)
        x, tokens = self._prompted(empty, Tokens(nothing, nothing, nothing), call)
        # Its slots are those before the text's first.
        lengths = jnp.full(rows, -first, jnp.int32)
        context = Context.of(tokens, self.position, call, lengths=lengths, shared=True)
        return self.blocks(x, context, dataclasses.replace(call, taps=()), caches=layers)[1]


def initial_decoder(model: config.Decoder, init: Initial, *, cross: bool = False) -> Decoder:
    """Kernels of variance 1 / inputs; those that write to the residual stream divided by sqrt(2 layers).

    By muP (`config.MuP`) an untied head keeps its base's variance.
    """
    scale = (2 * model.layers) ** -0.5

    def block(kind: config.Block, init: Initial) -> Block:
        made = initial_block(kind, model, init, causal=True, cross=cross, scale=scale)
        own = made.attention.config
        scores = score_scale(model.parametrization, own.head, own.scale)
        return made.replace(attention=made.attention.replace(config=dataclasses.replace(own, scale=scores)))

    return Decoder(
        embedding=heads.initial_embedding(model.vocab, model.embed, init),
        position=initial_position(model.position, model.embed, init.at("position"), heads_of(model.block)),
        blocks=initial_stack(model.stacked, model.layers, block, init.at("blocks")),
        norm=initial_last_norm(model, model.layers, init),
        head=heads.initial_head(
            model.head, model.vocab, model.embed, init, norm=model.norm, scale=times_base(model) ** 0.5
        ),
        config=model,
        embedding_norm=initial_embedding_norm(model, init),
        classifier=heads.initial_classifier(model.classifier, model.embed, init.at("classifier")),
        ahead=tuple(block(kind, init.at("ahead").number(number)) for number, kind in enumerate(model.further)),
    )


def initial_embedding_norm(model: config.Decoder | config.EncoderDecoder, init: Initial) -> Norm | None:
    """The norm of token vectors; None where they go in as they are."""
    normed = isinstance(model.embedding, config.Normed)
    return initial_norm(model.norm, model.embed, init.dtype) if normed else None
