"""What the backward pass finds, and what it computes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.parallel.layout import GATHERED, is_gather

NAMES = ("query", "key", "value", "attention", "middle", "gate", "up")
"""Activations of a block that may be kept: rotated queries, keys and values; attention's result before its
projection (with its normalizers, where the backend has them); the residual stream between attention and MLP; and
the MLP's products before the activation. When memory is short, up is the first to drop, then gate.
"""


def _all_but_gathered(primitive: Any, *_: Any, **parameters: Any) -> bool:
    return parameters.get("name") != GATHERED and not is_gather(primitive, parameters)


POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": _all_but_gathered,
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""All is kept but what was gathered; nothing but each layer's input; or the products with weights."""


def named(name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x, which a policy can keep by this name."""
    return checkpoint_name(x, name)


def policy(remat: str) -> Callable[..., bool] | None:
    """From the config's word: one of `POLICIES`, or names joined by "+", those marked "@" kept in host memory.

    Raises UsageError for any other word.
    """
    if remat in POLICIES:
        return POLICIES[remat]
    words = remat.split("+")
    unknown = [word for word in words if word.removeprefix("@") not in NAMES]
    if unknown:
        raise UsageError(
            f"where.remat={remat!r}: {unknown[0]!r} is none of {', '.join(NAMES)}; choose "
            f"{', '.join(POLICIES)}, or names joined by +, such as query+key+value+@up (@: kept in host memory)"
        )
    host = [word[1:] for word in words if word.startswith("@")]
    device = [word for word in words if not word.startswith("@")]
    if not host:
        return jax.checkpoint_policies.save_only_these_names(*device)
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=device,
        names_which_can_be_offloaded=host,
        offload_src="device",
        offload_dst="pinned_host",
    )
