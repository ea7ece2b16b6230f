"""The log-probabilities of tokens after others, in batches of few shapes: one program for each."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.evaluate.results import Subject
from jaxlm.evaluate.tokens import Ids
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.logprob import likeliest, log_probability
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling.loop import bucket, check_positions

TOKENS = 8192
"""Positions that are computed at once."""
CHUNK = 256
"""Tokens whose logits exist at once."""


@dataclass(frozen=True)
class Scored:
    """A continuation's tokens after its context."""

    nats: Float[np.ndarray, " tokens"]
    """Log-probability of each, float32."""
    greedy: Bool[np.ndarray, " tokens"]
    """Whether greedy drawing would have taken each token: of equally likely ones the first."""
    cut: bool = False
    """Whether the context had to be shortened on the left."""

    @property
    def total(self) -> float:
        """Of all tokens together, added in float64."""
        return float(self.nats.sum(dtype=np.float64))


def score(subject: Subject, requests: Sequence[tuple[Ids, Ids]]) -> list[Scored]:
    """Of each (context, continuation), in their order.

    A context begins with BOS and loses its first tokens where both are longer than `subject.length` and one.
    Results do not depend on what else is asked, of a model as `subject` hands it over. Raises UsageError for a
    model that does not predict next tokens, and for a continuation without tokens or longer than the model reads.
    """
    if isinstance(subject.model, Encoder | EncoderDecoder):
        raise UsageError(
            f"{_kind(subject.model)} gives texts no log-probability: this task wants a decoder or RWKV"
        )
    rows: dict[tuple[bytes, int], list[int]] = {}
    for index, (context, continuation) in enumerate(requests):
        row = _row(context, continuation, subject.length)
        rows.setdefault((row[:-1].tobytes(), len(continuation)), []).append(index)
    # Requests that differ in their last token alone, such as letters of choices, are read once.
    inputs = [np.frombuffer(key, np.int32) for key, _ in rows]
    shared = list(rows.values())
    found: list[Scored | None] = [None] * len(requests)
    check_positions(subject.model, max(map(len, inputs), default=0))
    for chosen in batches([len(row) for row in inputs], subject.length):
        targets = [[requests[index][1] for index in shared[one]] for one in chosen]
        for one, each in zip(chosen, _batch(subject, [inputs[one] for one in chosen], targets)):
            for index, (nats, greedy) in zip(shared[one], each):
                found[index] = Scored(nats, greedy, cut=sum(map(len, requests[index])) > subject.length + 1)
    return found


def _row(context: Ids, continuation: Ids, length: int) -> Ids:
    """Both, without what a model of this length does not read."""
    if not 0 < len(continuation) <= length or not len(context):
        raise UsageError(
            f"a text of {len(continuation)} tokens after {len(context)} cannot be scored: the model reads {length} "
            "tokens, and there must be some"
        )
    return np.concatenate([context, continuation]).astype(np.int32)[-length - 1 :]


def _kind(model: Any) -> str:
    return {"Encoder": "an encoder", "EncoderDecoder": "an encoder-decoder"}[type(model).__name__]


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of rows that are computed together: longest first, of one width, as many as `TOKENS` hold."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        width = bucket(min(lengths[order[start]], most))
        end = start + 1
        while end < min(start + max(TOKENS // width, 1), len(order)) and bucket(lengths[order[end]]) >= width:
            end += 1
        yield order[start:end]
        start = end


def _batch(
    subject: Subject, rows: Sequence[Ids], targets: Sequence[Sequence[Ids]]
) -> list[list[tuple[Float[np.ndarray, "_"], Bool[np.ndarray, "_"]]]]:
    """For each row what is known of each of the texts that end it, all as long; rows are rounded up to a power of
    two.
    """
    width = bucket(max(map(len, rows)))
    most = max(len(each) * len(each[0]) for each in targets)
    shape = (1 << (len(rows) - 1).bit_length(), bucket(most))
    places, wanted = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number, (row, each) in enumerate(zip(rows, targets)):
        size = len(each[0])
        places[number, : len(each) * size] = np.tile(np.arange(len(row) - size, len(row)), len(each))
        wanted[number, : len(each) * size] = np.concatenate(each)
    inputs = right_padded(rows, subject, width, shape[0])
    if subject.prefixed:
        inputs = _with_prefix(inputs, [len(row) + 1 - len(each[0]) for row, each in zip(rows, targets)])
    nats, greedy = jax.device_get(_scores(subject.model, inputs, places, wanted, call=subject.call))
    found = []
    for number, each in enumerate(targets):
        ends = np.arange(1, len(each)) * len(each[0])
        pieces = [np.split(column[number, : len(each) * len(each[0])], ends) for column in (nats, greedy > 0)]
        found.append(list(zip(*pieces)))
    return found


def right_padded(rows: Sequence[Ids], subject: Subject, width: int, count: int) -> Tokens:
    """Rows of one document each and, up to `count`, of padding alone."""
    lengths = np.array([len(row) for row in rows] + [0] * (count - len(rows)))
    places = np.arange(width, dtype=np.int32)
    real = places < lengths[:, None]
    ids = np.full(real.shape, subject.tokenizer.pad, np.int32)
    ids[real] = np.concatenate(rows)
    return Tokens(*map(jnp.asarray, (ids, real.astype(np.int32), np.where(real, places, 0))))


def _with_prefix(inputs: Tokens, ends: Sequence[int]) -> Tokens:
    """The contexts are seen from both sides."""
    segments = np.asarray(inputs.segments)
    whole = np.zeros((len(segments), 1), np.int32)
    whole[: len(ends), 0] = ends
    return Tokens(inputs.ids, inputs.segments, inputs.positions, prefix=jnp.asarray(whole * segments))


@functools.partial(jax.jit, static_argnames="call")
def _scores(
    model: Any,
    inputs: Tokens,
    places: Int[Array, "row scored"],
    targets: Int[Array, "row scored"],
    *,
    call: Call,
) -> tuple[Float[Array, "row scored"], Float[Array, "row scored"]]:
    """Log-probability of each target at its place, and whether none was likelier; logits exist in chunks."""
    hidden = model(inputs, call).hidden
    chosen = jnp.take_along_axis(hidden, places[..., None], axis=1)
    size = min(CHUNK, targets.size)
    missing = -targets.size % size
    pieces = jnp.pad(chosen.reshape(targets.size, -1), ((0, missing), (0, 0))).reshape(-1, size, hidden.shape[-1])
    wanted = jnp.pad(targets.reshape(-1), (0, missing)).reshape(-1, size)

    def one(piece: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = model.scorer(call)(piece[0])
        return log_probability(logits, piece[1], call.layout)[0], likeliest(logits, piece[1], call.layout)

    nats, greedy = jax.lax.map(one, (pieces, wanted))
    return tuple(each.reshape(-1)[: targets.size].reshape(targets.shape) for each in (nats, greedy))
