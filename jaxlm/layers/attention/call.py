"""The one attention call: it chooses a backend and hands everything to it.

A backend names its operands and its result for `layers.remat`. Kernels see a device's own heads: what the compiler
would split is split here.
"""

from __future__ import annotations

import functools

import jax
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention import blocks, chunked, cudnn, ring, splash, xla
from jaxlm.layers.attention.distances import Content, Disentangled
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import Layout

Q, K, TOKENS = ("row", "pos", "heads", "head"), ("row", "pos", "kv_heads", "head"), ("row", "pos")
OWN_ROW = "it takes causal attention of a row with itself only"
PREFIX = "it takes no prefix that is seen from both sides"
SHARED = "it takes no keys that all documents of a row see"
WHOLE_ROWS = "where.mesh.context spreads rows over devices"


def refusals(
    layout: Layout,
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    mask: Mask,
    bias: Array | None,
    softcap: float | None,
    content: Content | Disentangled | None = None,
) -> dict[str, str]:
    """Each backend, the fastest first, with why it does not take this attention, or nothing."""
    spread = layout.shards("pos") > 1
    # Within one program a device these are its own positions, outside all of them.
    own = layout.shards("pos") // layout.parts("pos")
    pieces = chunked.refusal(mask.q_positions.shape[1] // own, mask.k_positions.shape[1] // own, bias)
    alone = "" if spread else "it is for where.mesh.context > 1"
    vectors = "" if content is None else "it takes no vectors of distances"
    mixed = "" if content is None or content.values is None else "it takes no vectors of distances for values"
    found = {
        "all_to_all": alone or _undivided(layout, q, k) or ("" if bias is None else "it takes no bias"),
        "ring": alone or pieces,
        "splash": "it runs on TPUs only" if layout.platform != "tpu" else splash.refusal(q, mask, bias),
        "cudnn": "it runs on GPUs only" if layout.platform != "gpu" else cudnn.refusal(q, mask, bias, softcap),
        "blocks": mixed if blocks.takes(mask) else OWN_ROW,
        "xla": "",
        "chunked": pieces,
    }
    found |= {name: why or vectors for name, why in found.items() if name not in ("blocks", "xla")}
    if mask.prefix is not None:
        found |= {name: why or PREFIX for name, why in found.items() if name not in ("chunked", "xla")}
    if mask.shared:
        found |= {name: why or SHARED for name, why in found.items() if name not in ("chunked", "xla")}
    if not spread:
        return found
    return {name: why if name in ("ring", "all_to_all") else WHOLE_ROWS for name, why in found.items()}


def _undivided(layout: Layout, q: Array, k: Array) -> str:
    """Why heads cannot be dealt out among the devices that share a row, or nothing."""
    shards, own = layout.shards("pos"), layout.shards("heads") // layout.parts("heads")
    for name, x in (("heads", q), ("kv_heads", k)):
        if x.shape[2] // own % shards:
            return f"{x.shape[2] // own} {name} of each device do not divide among {shards} shards of positions"
    return ""


def backend(
    name: str,
    layout: Layout,
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    mask: Mask,
    bias: Array | None,
    softcap: float | None,
    content: Content | Disentangled | None = None,
) -> str:
    """The backend of this name; "auto" is the fastest that takes this attention. Raises UsageError."""
    found = refusals(layout, q, k, mask, bias, softcap, content)
    if name == "auto":
        taking = [one for one, why in found.items() if not why]
        if not taking:
            raise UsageError(
                f"no attention backend takes this: {'; '.join(f'{one}: {why}' for one, why in found.items())}"
            )
        return taking[0]
    if name not in found:
        raise UsageError(f"where.attention={name!r}: choose one of auto, {', '.join(found)}")
    if found[name]:
        raise UsageError(f"where.attention={name!r}: {found[name]}; choose auto")
    return name


def attend(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    v: Float[Array, "row key kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None = None,
    content: Content | Disentangled | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    call: Call,
) -> Float[Array, "row query heads head"]:
    """softmax(cap(scale (q k^T + content)) + bias) v; `scale` is 1 / sqrt(head) by default."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    more, layout = {"softcap": softcap, "scale": scale}, call.layout
    with jax.named_scope("attention"):
        match backend(_asked(call), layout, q, k, mask, bias, softcap, content):
            case "xla":
                return xla.attend(q, k, v, mask=mask, bias=bias, content=content, **more)
            case "blocks":
                return blocks.attend(q, k, v, mask=mask, bias=bias, content=content, **more)
            case "chunked":
                kernel = functools.partial(chunked.attend, **more)
            case "splash":
                kernel = functools.partial(splash.attend, **more)
            case "cudnn":
                kernel = functools.partial(cudnn.attend, scale=scale)
            case "ring":
                kernel = functools.partial(ring.attend, layout=layout, **more)
            case "all_to_all":
                local = functools.partial(_whole_rows, platform=layout.platform, **more)
                kernel = functools.partial(ring.exchanged, local, layout=layout)
        tokens = jax.tree.map(lambda _: TOKENS, mask)
        return layout.manual(kernel, (Q, K, K, tokens), Q)(q, k, v, mask)


def _asked(call: Call) -> str:
    """The backend's name; one that keeps no scores is refused by name where they are tapped. Raises UsageError."""
    if "scores" not in call.taps or call.attention == "xla":
        return call.attention
    if call.attention != "auto":
        raise UsageError(
            f"where.attention={call.attention!r}: it never holds the scores, which are tapped; choose auto"
        )
    return "xla"


def scores(
    q: Float[Array, "row query heads head"],
    k: Float[Array, "row key kv_heads head"],
    *,
    mask: Mask,
    bias: Float[Array, "#row heads query key"] | None = None,
    content: Content | Disentangled | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    call: Call,
) -> Float[Array, "row heads query key"]:
    """The tap "scores": what `attend` takes the softmax of, `xla.MASKED` where a query does not see a key."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    with jax.named_scope("attention"):
        backend(_asked(call), call.layout, q, k, mask, bias, softcap, content)
        more = {"mask": mask, "bias": bias, "content": content, "softcap": softcap}
        return xla.seen_scores(q, k.astype(q.dtype), scale=scale, **more)


def _whole_rows(
    q: Float[Array, "row pos heads head"],
    k: Float[Array, "row pos kv_heads head"],
    v: Float[Array, "row pos kv_heads head"],
    mask: Mask,
    *,
    platform: str,
    softcap: float | None,
    scale: float,
) -> Float[Array, "row pos heads head"]:
    """The fastest backend of linear memory that takes these, all on one device."""
    if platform == "tpu" and not splash.refusal(q, mask, None):
        return splash.attend(q, k, v, mask, softcap=softcap, scale=scale)
    if platform == "gpu" and not cudnn.refusal(q, mask, None, softcap):
        return cudnn.attend(q, k, v, mask, scale=scale)
    return chunked.attend(q, k, v, mask, softcap=softcap, scale=scale)
