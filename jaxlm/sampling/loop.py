"""The one loop that draws tokens: a prefill, then one step after another, for every kind of model with a cache.

Parameters are arguments of the compiled functions, the state is donated so that caches are updated in place, and
lengths are rounded up to powers of two so that few programs are compiled. Two rows of a batch know nothing of each
other, but in a mixture whose rows share the capacity of an expert.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Call, Memory, Model, RowKeys, Tokens
from jaxlm.layers.logprob import log_probability
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling.logits import Settings, at_position, draw, processed

SHORTEST = 16
"""The smallest length that is compiled for."""

Struct = TypeVar("Struct")


@struct.dataclass
class Request:
    """What does not change while a batch is drawn."""

    settings: Settings
    keys: RowKeys
    """Of `logits.sample_keys`; a token is drawn with its row's key and its own position."""
    limit: Int[Array, "row"]
    """Tokens to draw at most."""
    stop: Int[Array, ""]
    """The token that ends a row; -1 is none."""
    pad: Int[Array, ""]
    """What follows a row's end."""

    @classmethod
    def of(cls, settings: Settings, keys: RowKeys, *, tokens: int, stop: int | None, pad: int = 0) -> Request:
        """At most `tokens` for every row, fewer where `stop` is drawn."""
        rows = keys.shape[0]
        numbers = (np.full(rows, tokens, np.int32), np.int32(-1 if stop is None else stop), np.int32(pad))
        return cls(settings, keys, *map(jnp.asarray, numbers))


@struct.dataclass
class State:
    """A batch part way: `step` tokens have been drawn for each row that is not done."""

    cache: Cache
    last: Tokens
    """The token drawn last, [row, 1], which the cache does not hold yet; padding where the row is done."""
    step: Int[Array, ""]
    done: Bool[Array, "row"]
    stopped: Bool[Array, "row"]
    lengths: Int[Array, "row"]
    ids: Int[Array, "row new"]
    raw: Float[Array, "row new"]
    drawn: Float[Array, "row new"]


@struct.dataclass
class Generated:
    """Drawn tokens; beyond a row's length, ids are padding and log-probabilities 0."""

    ids: Int[Array, "row new"]
    lengths: Int[Array, "row"]
    """Tokens drawn, the one that stopped the row included."""
    log_probabilities: Float[Array, "row new"]
    """Of each token by the model alone, nats."""
    processed_log_probabilities: Float[Array, "row new"]
    """Of each token by the distribution it was drawn from, nats."""
    stopped: Bool[Array, "row"]
    """The row ended with the stop token."""
    done: Bool[Array, "row"]
    """The row has ended, by the stop token or at the limit."""


def bucket(length: int) -> int:
    """The power of two at or above a length, at least `SHORTEST`."""
    return max(SHORTEST, 1 << (length - 1).bit_length())


@jax.jit
def _unstack(model: Struct) -> Struct:
    if isinstance(model, EncoderDecoder):
        return dataclasses.replace(model, decoder=_unstack(model.decoder))
    return dataclasses.replace(model, blocks=model.blocks.unstacked())


def unstacked(model: Struct) -> Struct:
    """The model with its generating layers apart: they are cut out of their stack once and not for every token.

    A model that is already so is returned as it is.
    """
    blocks = model.decoder.blocks if isinstance(model, EncoderDecoder) else model.blocks
    return _unstack(model) if blocks.repeats else model


def prefill(
    model: Model, tokens: Tokens, call: Call, memory: Memory | None = None, *, length: int
) -> tuple[Tokens, Float[Array, "row vocab"], Cache]:
    """Run the prompts: the last token of each row, [row, 1], the logits after it, and a cache of `length` tokens.

    Tokens are right-padded. Raises UsageError for an encoder, and for a memory that the model does not attend to.
    """
    call = dataclasses.replace(call, mode="prefill", taps=())
    output = model(tokens, call, memory=memory, cache=model.empty_cache(tokens.ids.shape[0], length, call))
    if memory is not None and getattr(output.cache.layers[0], "cross", None) is None:
        raise UsageError(f"a {type(model).__name__.lower()} attends to no memory: pass memory=None")
    rows = jnp.arange(tokens.ids.shape[0])
    end = jnp.maximum(jnp.sum(tokens.segments > 0, axis=1) - 1, 0)
    last = Tokens(
        *(x[rows, end][:, None] for x in (tokens.ids, tokens.segments, tokens.positions)), tokens.adapters
    )
    return last, model.logits(output.hidden[rows, end], call), output.cache


def _append(request: Request, state: State, logits: Float[Array, "row vocab"], call: Call) -> State:
    """Draw a token for each row that is not done."""
    going = ~state.done
    positions = state.last.positions[:, 0] + going
    logits = logits.astype(jnp.float32)
    scores = processed(logits, request.settings)
    keys = at_position(request.keys, positions)
    # Greedy rows need no noise, a number for every token of the vocabulary.
    ids = jax.lax.cond(
        jnp.any(request.settings.temperature > 0), draw, lambda scores, _: _best(scores), scores, keys
    )
    stopped = going & (ids == request.stop)
    lengths = state.lengths + going
    done = state.done | stopped | (lengths >= request.limit)

    def put(column: Array, where: Array, otherwise: Array | float) -> Array:
        column = jnp.where(going, column, otherwise).astype(where.dtype)
        return jax.lax.dynamic_update_slice_in_dim(where, column[:, None], state.step, axis=1)

    segments = jnp.where(done[:, None], 0, state.last.segments)
    return State(
        cache=state.cache,
        last=Tokens(jnp.where(going, ids, request.pad)[:, None], segments, positions[:, None], state.last.adapters),
        step=state.step + 1,
        done=done,
        stopped=state.stopped | stopped,
        lengths=lengths,
        ids=put(ids, state.ids, request.pad),
        raw=put(log_probability(logits, ids, call.layout)[0], state.raw, 0.0),
        drawn=put(log_probability(scores, ids, call.layout)[0], state.drawn, 0.0),
    )


def _best(scores: Float[Array, "row vocab"]) -> Int[Array, "row"]:
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def _step(model: Model, request: Request, state: State, call: Call) -> State:
    """Take in the tokens drawn last and draw the next ones."""
    output = model(state.last, call, cache=state.cache)
    logits = model.logits(output.hidden[:, 0], call)
    return _append(request, dataclasses.replace(state, cache=output.cache), logits, call)


@functools.partial(jax.jit, static_argnames=("length", "buffer", "call"))
def _start(
    model: Model,
    prompts: Tokens,
    request: Request,
    memory: Memory | None,
    *,
    length: int,
    buffer: int,
    call: Call,
) -> State:
    last, logits, cache = prefill(model, prompts, call, memory, length=length)
    rows = prompts.ids.shape[0]
    zeros = jnp.zeros((rows, buffer), jnp.float32)
    state = State(
        cache=cache,
        last=last,
        step=jnp.int32(0),
        done=(last.segments[:, 0] == 0) | (request.limit < 1),
        stopped=jnp.zeros(rows, bool),
        lengths=jnp.zeros(rows, jnp.int32),
        ids=jnp.full((rows, buffer), request.pad, jnp.int32),
        raw=zeros,
        drawn=zeros,
    )
    return _append(request, state, logits, call)


@functools.partial(jax.jit, static_argnames=("call",), donate_argnames=("state",))
def _continue(model: Model, request: Request, state: State, steps: Int[Array, ""], *, call: Call) -> State:
    call = dataclasses.replace(call, mode="decode", taps=())
    last = state.step + steps

    def go_on(state: State) -> Bool[Array, ""]:
        return jnp.any(~state.done) & (state.step < last)

    return jax.lax.while_loop(go_on, lambda state: _step(model, request, state, call), state)


def start(
    model: Model, prompts: Tokens, request: Request, *, tokens: int, call: Call, memory: Memory | None = None
) -> State:
    """Run the prompts, right-padded, and draw each row's first token; there is room for `tokens` in all.

    A row without tokens stays empty. For speed `model` should be `unstacked`. Raises UsageError for an encoder, and
    for prompts too long for the model's learned positions.
    """
    if tokens < 1:
        raise UsageError(f"tokens={tokens}: must be at least 1")
    longest = prompts.ids.shape[1]
    check_positions(model, longest + tokens - 1)
    prompts, memory = _padded(prompts), memory and _padded(memory)
    size = {"length": bucket(longest + tokens), "buffer": bucket(tokens)}
    return _start(model, prompts, request, memory, call=call, **size)


def continue_(model: Model, request: Request, state: State, steps: int, *, call: Call) -> State:
    """Draw up to `steps` further tokens a row; `state` is donated and must not be used again."""
    return _continue(model, request, state, jnp.asarray(steps, jnp.int32), call=call)


def generated(state: State, tokens: int) -> Generated:
    """What has been drawn so far, in arrays of `tokens` columns."""
    columns = (state.ids, state.raw, state.drawn)
    ids, raw, drawn = (x if x.shape[1] == tokens else x[:, :tokens] for x in columns)
    return Generated(ids, state.lengths, raw, drawn, state.stopped, state.done)


def generate(
    model: Model,
    prompts: Tokens,
    settings: Settings,
    keys: RowKeys,
    *,
    tokens: int,
    stop: int | None,
    call: Call,
    memory: Memory | None = None,
    pad: int = 0,
) -> Generated:
    """Up to `tokens` tokens after each prompt, fewer where `stop` is drawn.

    Prompts are right-padded; a row without tokens stays empty. New tokens belong to the segment of their prompt's
    last one. An encoder-decoder's prompts are the targets' first tokens, and `memory` is what its `encode` returns;
    the memory's segments must be the prompts'. A row's tokens depend on its prompt, settings and key alone.
    Raises UsageError for an encoder, and where `start` does.
    """
    model = unstacked(model)
    request = Request.of(settings, keys, tokens=tokens, stop=stop, pad=pad)
    state = start(model, prompts, request, tokens=tokens, call=call, memory=memory)
    if tokens > 1:
        state = continue_(model, request, state, tokens - 1, call=call)
    return generated(state, tokens)


def _padded(x: Struct) -> Struct:
    """Tokens or a memory with the number of positions rounded up; the new ones are of segment 0."""
    more = bucket(x.segments.shape[1]) - x.segments.shape[1]
    if not more:
        return x

    def pad(leaf: Array) -> Array:
        widths = [(0, 0), (0, more), *[(0, 0)] * (leaf.ndim - 2)]
        return (jnp if isinstance(leaf, jax.Array) else np).pad(leaf, widths)

    leaves = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    alone = ("adapters", "terms", "shared")  # of no position
    leaves = {name: leaf for name, leaf in leaves.items() if name not in alone and leaf is not None}
    return dataclasses.replace(x, **{name: pad(leaf) for name, leaf in leaves.items()})


def check_positions(model: Model, longest: int) -> None:
    """Refuse what a table of positions does not hold; jax would make NaN of it. Raises UsageError."""
    decoder = model.decoder if isinstance(model, EncoderDecoder) else model
    position, prompt = getattr(decoder.config, "position", None), getattr(decoder, "prompt", None)
    longest += 0 if prompt is None else prompt.length
    if isinstance(position, config.Learned) and longest > position.length:
        raise UsageError(
            f"prompts and the tokens drawn after them need {longest} positions, and the model learned "
            f"{position.length}: shorten the prompts or draw fewer tokens"
        )
