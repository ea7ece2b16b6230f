"""Randomness that does not know how a batch was cut: every draw is keyed by what it is for."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxlm.parallel.layout import Axes, Layout


def site(name: str) -> int:
    """A stable number for a named place where randomness is used."""
    return zlib.crc32(name.encode())


def key(seed: Int[Array, ""] | int, step: Int[Array, ""] | int, name: str) -> Key[Array, ""]:
    """The key of one site in one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), site(name))


def low_bits(seed: int) -> Int[np.ndarray, ""]:
    """What `key` takes of a seed, as it is handed to a program that is given seeds."""
    return np.asarray(seed, np.int64).astype(np.int32)


def row_keys(base: Key[Array, ""], rows: Int[Array, "row"]) -> Key[Array, "row"]:
    """One key for each global row."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, rows)


def at(keys: Key[Array, "row"] | None, name: str | int | Int[Array, ""]) -> Key[Array, "row"] | None:
    """The rows' keys for a site within the model, by name or by layer number."""
    if keys is None:
        return None
    number = site(name) if isinstance(name, str) else name
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def token_keys(
    base: Key[Array, ""], documents: Int[Array, "row pos"], places: Int[Array, "row pos"]
) -> Key[Array, "row pos"]:
    """One key for each token, by its document and its place there: packing and padding change none."""

    def one(document: Int[Array, ""], place: Int[Array, ""]) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.fold_in(base, document), place)

    return jax.vmap(jax.vmap(one))(documents, places)


def of_tokens(
    base: Key[Array, ""], documents: Int[Array, "row pos"], places: Int[Array, "row pos"]
) -> Float[Array, "row pos"]:
    """A number in [0, 1) for each token, by its key."""
    return jax.vmap(jax.vmap(jax.random.uniform))(token_keys(base, documents, places))


def dropout(
    x: Float[Array, "row pos features"], rate: float, keys: Key[Array, "row"] | None, layout: Layout
) -> Float[Array, "row pos features"]:
    """Zero each feature with probability `rate` and scale the rest by 1 / (1 - rate); no keys, no dropout.

    Drawn for whole rows, of which a device takes its own positions.
    """
    if keys is None or rate == 0.0:
        return x
    length = x.shape[1] * layout.parts("tokens")
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, (length, x.shape[2])))(keys)
    keep = layout.own(keep, "tokens", 1)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def dropout_of_inputs(
    x: Float[Array, "row joined ..."], rate: float, keys: Key[Array, "row"] | None, axes: Axes, layout: Layout
) -> Float[Array, "row joined ..."]:
    """`dropout` of what a weight is given: tokens of all devices that are joined, some of the features `axes`."""
    if keys is None or rate == 0.0:
        return x
    names = ("pos", *axes)
    whole = tuple(size * layout.parts(axis) for size, axis in zip(x.shape[1:], names, strict=True))
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, whole))(keys)
    for dim, axis in enumerate(names, start=1):
        keep = layout.own(keep, axis, dim)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)
