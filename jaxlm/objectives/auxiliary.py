"""Terms that layers add to a loss: what a mixture of experts needs to stay balanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import blocks
from jaxlm.config.model import Model
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.objective import Sums


@dataclass(frozen=True)
class Auxiliary:
    """Coefficients and weights of the sums in `Output.terms`; means over the mixtures' layers.

    `load_balance` is a mean over documents too (or over batches), `router_z` over tokens; `dropped` is only
    reported: the share of choices that a capacity turned away.
    """

    mixture: config.Moe | None = None
    layers: int = 0
    """Mixtures that read the batch's inputs."""
    source_layers: int = 0
    """Mixtures that read the encoder's side."""

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term; none without a mixture."""
        if self.mixture is None:
            return {}
        return {
            "load_balance": self.mixture.balance.coefficient,
            "router_z": self.mixture.router_z,
            "dropped": 0.0,
        }

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """What is balanced, or shares a capacity, together."""
        if self.mixture is None:
            return "token"
        return "batch" if self.mixture.balance.over == "batch" or _rows(self.mixture) > 1 else "row"

    def weights(self, batch: Batch) -> Sums:
        """What each term's total is divided by, of the global batch."""
        if self.mixture is None:
            return {}
        sides = [(batch.inputs, self.layers)]
        if batch.source is not None:
            sides.append((batch.source, self.source_layers))
        tokens = sum(layers * jnp.sum(side.segments > 0, dtype=jnp.float32) for side, layers in sides)
        if self.mixture.balance.over == "batch":
            balanced = jnp.float32(sum(layers for _, layers in sides))
        else:
            balanced = sum(layers * documents(side.segments) for side, layers in sides)
        return {"load_balance": balanced, "router_z": tokens, "dropped": tokens}


NONE = Auxiliary()


def documents(segments: Int[Array, "row pos"]) -> Float[Array, ""]:
    """Documents of all rows, each counted once in every row that holds a piece of it."""
    rows, pos = segments.shape
    present = jnp.zeros((rows, pos + 1), bool).at[jnp.arange(rows)[:, None], segments].set(True, mode="drop")
    return jnp.sum(present[:, 1:], dtype=jnp.float32)


def auxiliary(model: Model, further: Sequence[config.Block] = ()) -> Auxiliary:
    """The terms of a model's mixtures, and of those in further layers that read the batch's inputs.

    Raises UsageError when they disagree on coefficients or on what is balanced: a term has one of each.
    """
    match model:
        case config.Rwkv4() | config.Rwkv5() | config.Rwkv6() | config.Rwkv7():
            return NONE
        case config.EncoderDecoder():
            source, own = blocks(model.block, model.encoder_layers), blocks(model.block, model.decoder_layers)
        case _:
            source, own = [], blocks(model.block, model.layers)
    sides = (source, [*own, *further])
    theirs, ours = ([b.mlp for b in side if isinstance(b.mlp, config.Moe)] for side in sides)
    mixtures = [*theirs, *ours]
    if not mixtures:
        return NONE
    for other in mixtures:
        if (other.balance, other.router_z) != (mixtures[0].balance, mixtures[0].router_z):
            raise UsageError(
                f"model.block: a mixture has {other.balance}, router_z={other.router_z}, another "
                f"{mixtures[0].balance}, router_z={mixtures[0].router_z}; use the same in all"
            )
    widest = max(mixtures, key=_rows)
    return Auxiliary(widest, len(ours), len(theirs))


def _rows(mixture: config.Moe) -> int:
    return mixture.dispatch.rows if isinstance(mixture.dispatch, config.Capacity) else 0
