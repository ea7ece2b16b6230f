"""Small models of all kinds, with a mixture of experts, in three forms of weight, and the tokens they read."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from jaxlm import config
from jaxlm.adapters.lora import lora
from jaxlm.layers.contracts import Tokens
from jaxlm.models import build
from jaxlm.quantize.build import quantized
from tests.tiny import random_model

SMALL = {"vocab": 32, "embed": 16}
ATTENTION = config.Attention(heads=4, kv_heads=2, head=4)
BLOCK = config.Block(attention=ATTENTION, mlp=config.Gated(width=24))

KINDS = {
    "decoder": config.Decoder(**SMALL, layers=2, block=BLOCK),
    "encoder": config.Encoder(
        **SMALL,
        layers=2,
        block=config.Block(
            attention=dataclasses.replace(ATTENTION, bias="all"),
            mlp=config.Plain(width=24, bias="all"),
            wiring=config.PostNorm(),
        ),
        position=config.Learned(length=16),
        head=config.Transformed(),
        embedding=config.Factorized(8),
        types=2,
        classifier=config.Classifier(),
    ),
    "encoder_decoder": config.EncoderDecoder(**SMALL, encoder_layers=2, decoder_layers=2, block=BLOCK),
    "mixture": config.Decoder(
        **SMALL,
        layers=2,
        block=config.Pattern(
            prefix=(BLOCK,),
            period=(config.Block(ATTENTION, config.Moe(experts=4, top_k=2, width=8, shared=8)),),
        ),
    ),
    "recurrent": config.Rwkv4(**SMALL, layers=2, width=24),
    "eagle": config.Rwkv5(**SMALL, layers=2, head_size=4, width=24),
    "finch": config.Rwkv6(**SMALL, layers=2, head_size=4, width=24, mix_rank=2, decay_rank=4),
    "goose": config.Rwkv7(
        **SMALL, layers=3, head_size=4, width=24, decay_rank=4, rate_rank=4, value_rank=2, gate_rank=4
    ),
}
RECURRENT = ("recurrent", "eagle", "finch", "goose")
"""Their initial layers change nothing: here every parameter is random."""
NIGHTLY = ("eagle", "finch")
"""With other random numbers: of some, norms of heads that are almost constant magnify rounding tenfold."""
POSITIONS = {
    "relative_bias": dataclasses.replace(KINDS["encoder_decoder"], position=config.RelativeBias(buckets=8)),
    "ahead": dataclasses.replace(KINDS["decoder"], layers=3, ahead=2),
    "shaw": dataclasses.replace(KINDS["decoder"], position=config.Shaw(clip=3)),
    "transformer_xl": config.Encoder(
        **SMALL, layers=2, block=KINDS["encoder"].block, position=config.TransformerXl()
    ),
    "two_tables": dataclasses.replace(
        KINDS["encoder_decoder"],
        block=KINDS["encoder"].block,
        position=config.Learned(length=16),
        norm=config.LayerNorm(),
        embedding=config.Normed(),
        tables="each",
    ),
    "disentangled": config.Encoder(
        **SMALL,
        layers=2,
        block=config.Block(config.Attention(4, 4, 4), config.Plain(24)),
        position=config.Disentangled(buckets=4, distance=8),
    ),
    "generator": dataclasses.replace(
        KINDS["encoder"],
        generator=config.Generator(12, 2, KINDS["encoder"].block),
        classifier=config.NoClassifier(),
    ),
}
"""Those with parameters of their own in attention, or which layers or two models share, or heads."""
GENERATES = ("decoder", "encoder_decoder", "mixture", *RECURRENT)


def _adapted(model):
    """LoRA whose `b` is not zero, so that the adapter matters."""
    model = lora(model, jax.random.key(1), rank=2)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 0.1 if jax.tree_util.keystr(path).endswith(".b") else leaf, model
    )


FORMS = {"plain": lambda model: model, "lora": _adapted, "int8": lambda model: quantized(model, config.Rounded())}


@cache
def make(kind: str, form: str = "plain"):
    model = (KINDS | POSITIONS)[kind]
    seed = 3 if kind in NIGHTLY else 0
    return FORMS[form](random_model(model, seed) if kind in RECURRENT else build(model, jax.random.key(0)))


def pack(rows: int = 8, length: int = 12) -> Tokens:
    """Two documents a row, the second followed by padding in odd rows."""
    ids = jax.random.randint(jax.random.key(2), (rows, length), 0, SMALL["vocab"])
    place = jnp.arange(length)[None].repeat(rows, 0)
    cut, end = 5, jnp.where(jnp.arange(rows) % 2, length - 3, length)[:, None]
    segments = jnp.where(place < cut, 1, jnp.where(place < end, 2, 0))
    positions = jnp.where(place < cut, place, jnp.where(place < end, place - cut, 0))
    return Tokens(ids, segments, positions)


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.nightly if k in NIGHTLY else ()) for k in KINDS])
def kind(request) -> str:
    return request.param


@pytest.fixture(params=list(POSITIONS))
def position(request) -> str:
    return request.param


@pytest.fixture(params=list(FORMS))
def form(request) -> str:
    return request.param


@pytest.fixture(name="make", scope="session")
def make_fixture():
    return make


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    return pack()
