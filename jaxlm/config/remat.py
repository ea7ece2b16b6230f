"""What `where.remat` may say."""

from __future__ import annotations

from jaxlm.config.errors import UsageError

POLICIES = ("none", "full", "dots")
"""All is kept but gathered parameters; nothing but each layer's input; or the products with weights."""

NAMES = ("query", "key", "value", "attention", "middle", "gate", "up")
"""Activations of a block that may be kept: rotated queries, keys and values; attention's result before its
projection (with its normalizers, where the backend has them); the residual stream between attention and MLP; and
the MLP's products before the activation. When memory is short, up is the first to drop, then gate.
"""


def kept(remat: str) -> tuple[list[str], list[str]]:
    """(Names kept on the device, names kept in host memory); both empty for one of `POLICIES`.

    Raises UsageError for any other word.
    """
    if remat in POLICIES:
        return [], []
    words = remat.split("+")
    unknown = [word for word in words if word.removeprefix("@") not in NAMES]
    if unknown:
        raise UsageError(
            f"where.remat={remat!r}: {unknown[0]!r} is none of {', '.join(NAMES)}; choose "
            f"{', '.join(POLICIES)}, or names joined by +, such as query+key+value+@up (@: kept in host memory)"
        )
    return [word for word in words if word[0] != "@"], [word[1:] for word in words if word[0] == "@"]
