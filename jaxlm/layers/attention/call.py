"""The one attention call: it chooses a backend and hands everything to it."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention import blocks, xla
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call

BACKENDS = {"xla": xla.attend, "blocks": blocks.attend}


def backend(call: Call, mask: Mask) -> str:
    """The backend that `call.attention` names; "auto" is the one that computes least. Raises UsageError."""
    name = call.attention
    if name == "auto":
        return "blocks" if blocks.takes(mask) else "xla"
    if name not in BACKENDS:
        raise UsageError(f"where.attention={name!r}: choose one of auto, {', '.join(BACKENDS)}")
    if name == "blocks" and not blocks.takes(mask):
        raise UsageError("where.attention='blocks' takes causal attention of a row with itself only: choose auto")
    return name


def attend(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    v: Float[Array, "row key kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "row heads query key"] | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    call: Call,
) -> Float[Array, "row query heads head"]:
    """softmax(cap(scale q k^T) + bias) v; `scale` is 1 / sqrt(head) by default."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    with jax.named_scope("attention"):
        return BACKENDS[backend(call, mask)](q, k, v, mask=mask, bias=bias, softcap=softcap, scale=scale)
