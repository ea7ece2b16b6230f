"""From a model's logits to a drawn token: pure functions, every parameter traced and one a row.

The order is temperature, min-p, top-k, top-p: each sees the distribution that the one before left. What a
processor removes is -inf. All is float32, whatever the logits' format. Thresholds are found bit by bit over the
order of float32 numbers, which costs 32 passes over the vocabulary and no sort. A threshold cannot tell ties apart:
tokens whose logits equal that of the last token kept are all kept, in top-k (more than k tokens then) and in top-p.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key, UInt32

from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import RowKeys

Logits = Float[Array, "row vocab"]


@struct.dataclass
class Settings:
    """How each row is drawn; nothing here is static, so a batch mixes settings and none is compiled for."""

    temperature: Float[Array, "row"]
    """Logits are divided by it; 0 is greedy: the most likely token, the first of ties."""
    top_k: Int[Array, "row"]
    """Only the k most likely tokens; 0 is off."""
    top_p: Float[Array, "row"]
    """The fewest tokens whose probabilities reach p, with the one that crosses it; 1 is off (arXiv:1904.09751)."""
    min_p: Float[Array, "row"]
    """Only tokens with at least this share of the best one's probability; 0 is off (arXiv:2407.01082)."""

    @classmethod
    def of(
        cls, rows: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
    ) -> Settings:
        """The same for every row. Raises UsageError for a value outside its range."""
        ranges = {
            "temperature": (temperature == 0 or 1e-5 <= temperature < np.inf, temperature, "0 or in [1e-5, inf)"),
            "top_k": (top_k >= 0, top_k, "at least 0"),
            "top_p": (0 < top_p <= 1, top_p, "in (0, 1]"),
            "min_p": (0 <= min_p <= 1, min_p, "in [0, 1]"),
        }
        for name, (right, value, allowed) in ranges.items():
            if not right:
                raise UsageError(f"{name}={value}: must be {allowed}")
        numbers = (np.float32(temperature), np.int32(top_k), np.float32(top_p), np.float32(min_p))
        return cls(*(jnp.asarray(np.full(rows, number)) for number in numbers))


def apply_temperature(logits: Logits, temperature: Float[Array, "row"]) -> Logits:
    """logits / temperature; where it is 0, the largest logit (the first of ties) becomes 0 and the others -inf."""
    greedy = (temperature == 0)[:, None]
    divisor = jnp.where(greedy, 1.0, temperature[:, None])
    best = jnp.argmax(logits, axis=-1)[:, None] == jnp.arange(logits.shape[-1])[None]
    return jnp.where(greedy, jnp.where(best, 0.0, -jnp.inf), logits / divisor)


def keep_min_p(logits: Logits, min_p: Float[Array, "row"]) -> Logits:
    """Keep tokens with p >= min_p * max p."""
    floor = jnp.max(logits, axis=-1) + jnp.log(min_p)
    return jnp.where(logits >= floor[:, None], logits, -jnp.inf)


def keep_top_k(logits: Logits, top_k: Int[Array, "row"]) -> Logits:
    """Keep the k largest logits, and all that equal the k-th; 0, or k beyond the vocabulary, keeps everything."""
    keys = _ordered(logits)
    wanted = jnp.where(top_k == 0, logits.shape[-1], jnp.minimum(top_k, logits.shape[-1]))

    def enough(threshold: UInt32[Array, "row"]) -> Array:
        return jnp.sum(keys >= threshold[:, None], axis=-1) >= wanted

    return _kept(logits, keys, _largest(enough, logits.shape[0]))


def keep_top_p(logits: Logits, top_p: Float[Array, "row"]) -> Logits:
    """Keep tokens for which the probability of strictly better ones is below p; 1 keeps everything."""
    keys, p = _ordered(logits), jax.nn.softmax(logits, axis=-1)
    wanted = jnp.maximum(top_p, jnp.finfo(jnp.float32).tiny)

    def enough(threshold: UInt32[Array, "row"]) -> Array:
        return jnp.sum(jnp.where(keys >= threshold[:, None], p, 0.0), axis=-1) >= wanted

    kept = _kept(logits, keys, _largest(enough, logits.shape[0]))
    return jnp.where((top_p >= 1)[:, None], logits, kept)


def processed(logits: Float[Array, "row vocab"], settings: Settings) -> Logits:
    """The logits that tokens are drawn from, float32; a processor that no row uses is not run."""
    logits = apply_temperature(logits.astype(jnp.float32), settings.temperature)
    steps = (
        (settings.min_p > 0, keep_min_p, settings.min_p),
        (settings.top_k > 0, keep_top_k, settings.top_k),
        (settings.top_p < 1, keep_top_p, settings.top_p),
    )
    for used, keep, parameter in steps:
        logits = jax.lax.cond(jnp.any(used), keep, lambda logits, _: logits, logits, parameter)
    return logits


def sample_keys(seeds: Int[Array, "row"], samples: Int[Array, "row"]) -> RowKeys:
    """Each row's key, from its seed and from which of the samples of one prompt it is."""
    return jax.vmap(lambda seed, sample: jax.random.fold_in(jax.random.key(seed), sample))(seeds, samples)


def at_position(keys: RowKeys, positions: Int[Array, "row"]) -> RowKeys:
    """The keys for drawing the tokens at these positions."""
    return jax.vmap(jax.random.fold_in)(keys, positions)


def draw(logits: Logits, keys: RowKeys) -> Int[Array, "row"]:
    """A token a row from softmax(logits), each with its own key: rows know nothing of each other."""

    def one(key: Key[Array, ""], logits: Float[Array, "vocab"]) -> Int[Array, ""]:
        return jax.random.categorical(key, logits).astype(jnp.int32)

    return jax.vmap(one)(keys, logits)


def _ordered(x: Logits) -> UInt32[Array, "row vocab"]:
    """Integers in the order of the numbers; both zeros are one."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    return jnp.where(x < 0, ~bits, bits | jnp.uint32(1 << 31))


def _largest(holds: Callable[[Array], Array], rows: int) -> UInt32[Array, "row"]:
    """The largest threshold of each row at which `holds`, which is true up to some threshold and false beyond."""

    def bit(index: Int[Array, ""], found: UInt32[Array, "row"]) -> UInt32[Array, "row"]:
        higher = found | (jnp.uint32(1 << 31) >> index.astype(jnp.uint32))
        return jnp.where(holds(higher), higher, found)

    return jax.lax.fori_loop(0, 32, bit, jnp.zeros(rows, jnp.uint32))


def _kept(logits: Logits, keys: UInt32[Array, "row vocab"], threshold: UInt32[Array, "row"]) -> Logits:
    return jnp.where(keys >= threshold[:, None], logits, -jnp.inf)
