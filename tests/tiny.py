"""Tiny models with every parameter random, tiny batches, and the layouts that tests compare."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.contracts import Batch, Call, Tokens
from jaxlm.layers.names import flatten, map_named
from jaxlm.models import build
from jaxlm.parallel.layout import Layout, single_device
from jaxlm.parallel.mesh import make_mesh

VOCAB, EMBED, ROWS, LENGTH = 64, 16, 8, 12
HEADS = config.Attention(heads=4, kv_heads=2, head=8)
GLOBAL = config.Block(HEADS, config.Gated(32))
LOCAL = config.Block(
    config.Attention(heads=4, kv_heads=2, head=8, window=4, softcap=3.0, bias="all"),
    config.Gated(32, "gelu", bias="all"),
)
SIZES = {"vocab": VOCAB, "embed": EMBED}


def wired(wiring, **attention) -> config.Block:
    return config.Block(config.Attention(heads=4, kv_heads=2, head=8, **attention), config.Gated(32), wiring)


WIRED = config.Pattern(
    prefix=(wired(config.ParallelTwoNorms(), qk_norm=config.EachHead()), wired(config.ResPostNorm())),
    period=(wired(config.Parallel(), qk_norm=config.AllHeads()),),
    suffix=(wired(config.Sandwich(), scale=0.5, position=config.Rope(theta=100.0)),),
)

KINDS = {
    "decoder": config.Decoder(
        **SIZES, layers=4, block=config.Pattern((LOCAL,), prefix=(GLOBAL,), suffix=(GLOBAL,))
    ),
    "wired": config.Decoder(
        **SIZES, layers=5, block=WIRED, head=config.Untied(softcap=4.0, bias="all"), embedding=config.Normed()
    ),
    "encoder": config.Encoder(
        **SIZES,
        layers=2,
        block=config.Block(
            config.Attention(4, 4, 8, bias="all"), config.Plain(32, "gelu", bias="all"), config.PostNorm()
        ),
        position=config.Learned(length=32),
        head=config.Untied(softcap=5.0),
    ),
    "encoder_decoder": config.EncoderDecoder(
        **SIZES, encoder_layers=2, decoder_layers=2, block=config.Block(HEADS, config.Plain(32, "relu"))
    ),
    "rwkv4": config.Rwkv4(**SIZES, layers=2, width=32),
    "rwkv6": config.Rwkv6(**SIZES, layers=2, head_size=4, width=32, mix_rank=3, decay_rank=5),
    "rwkv7": config.Rwkv7(
        **SIZES, layers=3, head_size=4, width=32, decay_rank=5, rate_rank=6, value_rank=3, gate_rank=7
    ),
}
NAMES = [pytest.param(name, marks=pytest.mark.nightly) if name == "rwkv6" else name for name in KINDS]
"""RWKV-6 is wired as RWKV-7 is, and compared with its paper by itself: the rest runs nightly."""
CALL = Call(single_device())


def layout(**mesh: int) -> Layout:
    return Layout(make_mesh(config.Mesh(**mesh)))


@functools.cache
def random_model(kind, seed: int = 0, std: float = 0.2):
    """Every leaf random, scales and biases too, drawn by numpy: no test passes because something is zero."""
    shapes = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(name: str, shape) -> jax.Array:
        last = name.rsplit(".", 1)[-1]
        center = {"scale": 1.0, "mix": 0.5, "log_decay": -1.0}.get(last, 0.0)
        return jnp.asarray(center + std * rng.standard_normal(shape.shape), shape.dtype)

    return map_named(draw, shapes)


def tokens(ids, segments=None, positions=None) -> Tokens:
    """Tokens of one document a row, or packed by `segments`: positions count from each document's start."""
    ids = np.asarray(ids)
    segments = np.ones_like(ids) if segments is None else np.asarray(segments)
    if positions is None:
        positions = np.zeros_like(ids)
        for row in range(ids.shape[0]):
            for pos in range(1, ids.shape[1]):
                same = segments[row, pos] == segments[row, pos - 1]
                positions[row, pos] = positions[row, pos - 1] + 1 if same else 0
    as_int = functools.partial(jnp.asarray, dtype=jnp.int32)
    return Tokens(as_int(ids), as_int(segments), as_int(positions))


def random_ids(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, VOCAB, (rows, length))


def packed_batch(kind, rows: int = ROWS, length: int = LENGTH, seed: int = 0) -> Batch:
    """Two documents and padding in every row, cut at other places in each; unequal weights, some zero."""
    rng = np.random.default_rng(seed)
    segments = np.zeros((rows, length), int)
    for row in range(rows):
        cut, end = 3 + row % 4, length - row % 3
        segments[row, :cut], segments[row, cut:end] = 1, 2
    ids = rng.integers(1, VOCAB, (rows, length)) * (segments > 0)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], (rows, length)) * (segments > 0)
    source = None
    if isinstance(kind, config.EncoderDecoder):
        source = tokens(rng.integers(1, VOCAB, (rows, length)), segments)
    return Batch(
        inputs=tokens(ids, segments),
        targets=jnp.asarray(rng.integers(0, VOCAB, (rows, length)), jnp.int32),
        weights=jnp.asarray(weights, jnp.float32),
        rows=jnp.arange(100, 100 + rows, dtype=jnp.int32),
        documents=jnp.asarray(segments + 10 * np.arange(rows)[:, None], jnp.int32),
        source=source,
    )


def close(got, wanted, tolerance: float = 5e-6) -> None:
    """Each leaf within tolerance * max(|leaf|, 1e-3 |all leaves|), in norms: how gradients are compared."""
    got, wanted = flatten(got), flatten(wanted)
    assert got.keys() == wanted.keys()
    got, wanted = ({k: np.asarray(v, np.float64) for k, v in tree.items()} for tree in (got, wanted))
    whole = np.sqrt(sum(np.sum(leaf**2) for leaf in wanted.values()))
    assert whole > 0
    for name, leaf in wanted.items():
        error = np.linalg.norm(got[name] - leaf)
        limit = tolerance * max(np.linalg.norm(leaf), 1e-3 * whole)
        assert error <= limit, f"{name}: off by {error:.2e}, allowed {limit:.2e}"
