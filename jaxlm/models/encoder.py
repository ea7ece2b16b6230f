"""A bidirectional model whose head predicts the token in place (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.model import generating
from jaxlm.layers.block import Context, initial_block, initial_last_norm
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.positions import Learned, Position, heads_of, initial_position
from jaxlm.layers.projection import Weight, look_up, project
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.layers.taps import tapped
from jaxlm.models import heads


@struct.dataclass
class Encoder:
    """Embedding of tokens, positions and types, bidirectional blocks, norm, head, classifier."""

    embedding: Weight
    position: Position
    blocks: Stack
    norm: Norm | None
    head: heads.Head
    config: config.Encoder = struct.field(pytree_node=False)
    types: Weight | None = None
    embedding_norm: Norm | None = None
    embedding_projection: Weight | None = None
    classifier: heads.Classifier | None = None
    generator: Encoder | None = None
    """Without what it shares with this model: use `generating`."""

    @property
    def generating(self) -> Encoder:
        """The generator with what it shares with this model, for both to train: tables, and the norm of their sum.

        Raises UsageError where there is none.
        """
        if self.generator is None:
            raise UsageError("model.generator is no_generator: nothing here replaces tokens; use generator")
        return dataclasses.replace(self.generator, **_shared(self))

    @property
    def alone(self) -> Encoder:
        """This model without its generator."""
        return dataclasses.replace(self, generator=None, config=self.config.alone)

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
        x = call.layout.constrain(self._embedded(inputs, call, key), ("row", "pos", "features"))
        taps = tapped(call, embedding=x[None])
        x, _, report = self.blocks(x, Context.of(inputs, self.position, call), call, key=at(key, "blocks"))
        return Output(x if self.norm is None else self.norm(x), terms=report.terms, taps=taps | report.taps)

    def _embedded(self, inputs: Tokens, call: Call, key: RowKeys | None) -> Float[Array, "row pos embed"]:
        x = look_up(self.embedding, inputs.ids, call)
        x = self.position.embed(x, inputs.positions, call)
        if self.types is not None:
            types = jnp.zeros_like(inputs.ids) if inputs.types is None else inputs.types
            x = x + look_up(self.types, types, call)
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        x = dropout(x, self.config.dropout, at(key, "embedding.dropout"), call.layout)
        if self.embedding_projection is None:
            return x
        return project(self.embedding_projection, x, "rpf,fe->rpe", call, key=key, adapters=inputs.adapters)

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

    def classify(self, features: Float[Array, "... embed"], call: Call) -> Float[Array, "... labels"]:
        """Scores of labels, of what `models.pooling` makes of hidden states; see `heads.classified`."""
        return heads.classified(self.classifier, features, call)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """An encoder does not generate: raises UsageError."""
        raise UsageError(
            "an encoder predicts tokens in place and does not generate: use a decoder, an encoder_decoder or rwkv4"
        )


def _shared(model: Encoder) -> dict[str, Any]:
    """The fields that a generator has of its discriminator (Clark et al. 2020, section 3.2).

    Only a table of positions is of the embedding: all others belong to the layers.
    """
    fields = ("embedding", "types", "embedding_norm")
    fields += ("position",) if isinstance(model.position, Learned) else ()
    return {name: getattr(model, name) for name in fields}


def initial_generator(model: config.Encoder, init: Initial) -> Encoder | None:
    """The generator of a discriminator, without what it shares.

    Raises UsageError where it would project what nothing normalizes.
    """
    if (kind := generating(model)) is None:
        return None
    if isinstance(model.embedding, config.Unchanged) and kind.embed != model.features:
        raise UsageError(f"model.generator.embed={kind.embed}: unchanged tables have {model.features} features")
    generator = initial_encoder(kind, init)
    return dataclasses.replace(generator, **dict.fromkeys(_shared(generator)))


def initial_encoder(model: config.Encoder, init: Initial) -> Encoder:
    """Kernels of variance 1 / inputs; those that write to the residual stream divided by sqrt(2 layers)."""
    scale = (2 * model.layers) ** -0.5

    def block(kind: config.Block, init: Initial):
        return initial_block(kind, model, init, causal=False, cross=False, scale=scale)

    features, kind = model.features, model.embedding
    # Vectors of distances meet the layers' queries and keys; those of positions are added to tokens'.
    added = model.embed if isinstance(model.position, config.Disentangled) else features
    types = ((model.types, features), ("types", "embed"))
    inward = ((features, model.embed), ("embed", "embed"))
    return Encoder(
        embedding=heads.initial_embedding(model.vocab, features, init),
        position=initial_position(model.position, added, init.at("position"), heads_of(model.block), model.norm),
        blocks=initial_stack(model.block, model.layers, block, init.at("blocks")),
        norm=initial_last_norm(model, model.layers, init),
        head=heads.initial_head(model.head, model.vocab, model.embed, init, features=features, norm=model.norm),
        config=model,
        types=init.dense("types", *types, std=0.02) if model.types else None,
        embedding_norm=None if kind == config.Unchanged() else initial_norm(model.norm, features, init.dtype),
        embedding_projection=(
            init.dense("embedding_projection", *inward, bias=True) if isinstance(kind, config.Factorized) else None
        ),
        classifier=heads.initial_classifier(model.classifier, model.embed, init.at("classifier")),
        generator=initial_generator(model, init.at("generator")),
    )
