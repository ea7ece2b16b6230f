"""What the backward pass finds, and what it computes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxlm.config.remat import kept
from jaxlm.parallel.layout import GATHERED, is_gather


def _all_but_gathered(primitive: Any, *_: Any, **parameters: Any) -> bool:
    return parameters.get("name") != GATHERED and not is_gather(primitive, parameters)


POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": _all_but_gathered,
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def named(name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x, which a policy can keep by this name."""
    return checkpoint_name(x, name)


def policy(remat: str) -> Callable[..., bool] | None:
    """From the config's word: see `config.remat`. Raises UsageError for an unknown one."""
    device, host = kept(remat)
    if remat in POLICIES:
        return POLICIES[remat]
    if not host:
        return jax.checkpoint_policies.save_only_these_names(*device)
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=device,
        names_which_can_be_offloaded=host,
        offload_src="device",
        offload_dst="pinned_host",
    )
