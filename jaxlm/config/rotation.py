"""Of which decoders the residual stream can be rotated, and what becomes of their config."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlm.config.block import Parallel, ParallelTwoNorms, PreNorm, RMSNorm, ZeroCentered, distinct
from jaxlm.config.errors import UsageError
from jaxlm.config.head import Tied, Untied
from jaxlm.config.model import Decoder, Model, Normed
from jaxlm.config.position import Sinusoidal

NORMS = (RMSNorm, ZeroCentered)
"""Those that divide by what no rotation changes."""
WIRINGS = (PreNorm, Parallel, ParallelTwoNorms)
"""Those that add a branch as it is, and read the stream through a norm only."""


def rotated(model: Model) -> Decoder:
    """The config of the model that `quantize.rotate` makes: the same, with a head of its own.

    The last norm's scale goes into the head, and so does a tied one's factor; token vectors do not have them.
    Raises UsageError for what is no decoder, and for parts that tell one direction of the stream from another.
    """
    if not isinstance(model, Decoder):
        kind = type(model).__name__
        raise UsageError(f"rotation: only the stream of a decoder can be rotated, and the model is {kind}")
    for problem in _problems(model):
        raise UsageError(f"rotation: {problem}")
    head = Untied(model.head.softcap) if isinstance(model.head, Tied) else model.head
    return dataclasses.replace(model, head=head)


def _problems(model: Decoder) -> Iterator[str]:
    if not isinstance(model.norm, NORMS):
        yield (
            f"model.norm is {type(model.norm).__name__}, which takes the mean of features from them: a rotated "
            "stream has another; only rms_norm and zero_centered stay what they are"
        )
    for block in distinct(model.block, model.layers):
        if not isinstance(block.wiring, WIRINGS):
            yield (
                f"block.wiring is {type(block.wiring).__name__}: a norm's scale stands in the residual stream, or "
                "the stream is read without one; only pre_norm, parallel and parallel_two_norms have weights alone "
                "behind their norms"
            )
    if isinstance(model.embedding, Normed):
        yield "model.embedding is Normed: the scale of its norm stands in the residual stream"
    if isinstance(model.position, Sinusoidal):
        yield "model.position is Sinusoidal: waves are added to the stream, and there are no rotated ones"
    if not isinstance(model.head, Tied | Untied):
        yield (
            f"model.head is {type(model.head).__name__}: hidden states would be others; there must be a tied or "
            "untied head to turn them back"
        )
