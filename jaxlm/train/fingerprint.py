"""What an array holds, in 16 hex digits that are the same on any mesh.

Each element's bits are joined with its flat index and mixed by a bijection of 32-bit words, and the results
are summed modulo 2^32: integer sums do not care in which order or on which device they are made. A change of
one element always changes the sum; other changes (rows swapped, signs flipped, arrays exchanged) go unseen
with probability 2^-32, and a second sum of words remixed makes that about 2^-64. The mixing matters: in a
plain sum of elements times odd weights, flipped signs cancel in pairs. Flat indices wrap at 2^32 elements:
beyond, an exchange of two elements exactly that far apart is not seen.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from jaxlm.layers.names import flatten
from jaxlm.runs.digest import digest

__all__ = ["digest", "fingerprint"]


def fingerprint(tree: Any) -> dict[str, str]:
    """The fingerprint of each array by its dotted name; dtype and shape are part of it, sharding is not.

    Takes every dtype and typed PRNG keys; the words are computed where the arrays are. Raises TypeError for a
    leaf that is no array.
    """
    leaves = flatten(tree)
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(f"{name} is a {type(leaf).__name__}, not an array")
    # One program for all that share devices: several at once that sum over processes, each in an order of its
    # own, can wait for each other for ever.
    groups: dict[Any, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        devices = frozenset(leaf.devices()) if isinstance(leaf, jax.Array) else None
        groups.setdefault(devices, {})[name] = _as_words_on_host(leaf)
    words = {name: pair for group in groups.values() for name, pair in _all_words(group).items()}
    return {name: _hex(leaves[name], *pair) for name, pair in jax.device_get(words).items()}


def _as_words_on_host(leaf: Shaped[Array, "*shape"] | np.ndarray) -> Shaped[Array, "*shape"] | np.ndarray:
    """Wide numpy arrays as pairs of 32-bit words: a device would round them to its own widest dtype."""
    if isinstance(leaf, jax.Array) or leaf.dtype.itemsize < 8:
        return leaf
    return np.ascontiguousarray(leaf)[..., None].view(np.uint32)


@jax.jit
def _words(leaf: Shaped[Array, "*shape"]) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    bits = _bits(leaf)
    mixed = _mix(bits ^ _flat_index(bits.shape) * jnp.uint32(0x9E3779B9))
    again = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    # One reduction of both: two sums take two passes, and run several times slower on a CPU.
    return jax.lax.reduce(
        (mixed, again ^ (again >> 12)),
        (jnp.uint32(0), jnp.uint32(0)),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        tuple(range(bits.ndim)),
    )


@jax.jit
def _all_words(leaves: dict[str, Any]) -> dict[str, tuple[UInt32[Array, ""], UInt32[Array, ""]]]:
    return {name: _words(leaf) for name, leaf in leaves.items()}


def _bits(leaf: Shaped[Array, "*shape"]) -> UInt32[Array, "*words"]:
    """Each element's bits; 64-bit elements become a last axis of two words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = jax.dtypes.itemsize_bits(leaf.dtype)
    unsigned = jnp.dtype(f"uint{min(width, 32)}")
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _flat_index(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        index += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return index


def _mix(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """A bijection of 32-bit words in which each bit of the result hangs on all (MurmurHash3's finalizer)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def _hex(leaf: Any, first: np.ndarray, second: np.ndarray) -> str:
    kind = hashlib.sha256(f"{leaf.dtype}{list(leaf.shape)}".encode()).digest()
    value = (int(first) << 32 | int(second)) ^ int.from_bytes(kind[:8], "big")
    return f"{value:016x}"
