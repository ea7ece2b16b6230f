"""Students made of their teachers' parameters: exact where nothing that matters is cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import flops
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.surgery import Cut, cut, every_other, pattern
from jaxlm.distill.surgery import student
from jaxlm.layers.names import flatten, map_named
from jaxlm.layers.stack import Stack
from jaxlm.models import build
from jaxlm.quantize.build import quantized
from tests.tiny import CALL, GLOBAL, HEADS, KINDS, LOCAL, SIZES, packed_batch, random_model

WIDE = config.Decoder(**SIZES, layers=4, block=GLOBAL, head=config.Untied())
SHARED = config.Encoder(**SIZES, layers=4, block=config.Shared((config.Block(HEADS, config.Plain(32)),)))


@jax.jit
def logits(model, batch):
    memory = None if batch.source is None else model.encode(batch.source, CALL)
    return model.logits(model(batch.inputs, CALL, memory=memory).hidden, CALL)


OFTEN = ("decoder", "encoder_decoder", "rwkv7")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.nightly) for name in KINDS]
)
def test_nothing_is_cut(name):
    model = random_model(KINDS[name])
    same, kind = student(model, Cut())
    assert kind == KINDS[name]
    assert jax.tree.structure(same) == jax.tree.structure(model)
    jax.tree.map(np.testing.assert_array_equal, same, model)


LAYERS = [("decoder", (0, 1, 3, 2)), ("rwkv7", (0, 2)), ("decoder", (1, 2)), ("wired", (0, 4)), ("encoder", (1,))]


@pytest.mark.parametrize(
    ("name", "layers"),
    [pytest.param(*one, marks=() if place < 2 else pytest.mark.nightly) for place, one in enumerate(LAYERS)],
)
def test_layers_are_those_of_the_teacher(name, layers):
    """The teacher with only these layers, unrolled, is the student; with others it is not."""
    model, batch = random_model(KINDS[name]), packed_batch(KINDS[name])
    got, kind = student(model, Cut(layers=layers))
    assert kind.layers == len(layers)
    every = model.blocks.layers()
    wanted = dataclasses.replace(model, blocks=Stack(tuple(every[layer] for layer in layers), (), (), 0))
    np.testing.assert_allclose(logits(got, batch), logits(wanted, batch), atol=2e-5)
    assert np.abs(logits(got, batch) - logits(model, batch)).max() > 1e-2
    assert sum(leaf.size for leaf in jax.tree.leaves(got)) == flops.parameters(kind)["total"]
    assert jax.tree.structure(got) == jax.tree.structure(jax.eval_shape(lambda: build(kind, jax.random.key(0))))


def test_both_halves_of_an_encoder_decoder():
    model = random_model(KINDS["encoder_decoder"])
    got, kind = student(model, Cut(layers=(1,), encoder_layers=(0,)))
    assert (kind.encoder_layers, kind.decoder_layers) == (1, 1)
    ours, theirs = flatten(got), flatten(model)
    name = "blocks.period.0.attention.query.kernel"
    np.testing.assert_array_equal(ours[f"decoder.{name}"][0], theirs[f"decoder.{name}"][1])
    name = name.replace("blocks", "encoder")
    np.testing.assert_array_equal(ours[name][0], theirs[name][0])


def test_layers_that_share_their_parameters():
    model = random_model(SHARED)
    got, kind = student(model, Cut(layers=every_other(4)))
    assert kind == dataclasses.replace(SHARED, layers=2)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(got), jax.tree.leaves(model))


def silenced(model, heads, features):
    """The same with no output of these key heads' groups and hidden features, others in every layer."""
    block = model.blocks.period[0]
    out, down = np.array(block.attention.out.kernel), np.array(block.mlp.down.kernel)
    for layer in range(out.shape[0]):
        for group in heads[layer]:
            out[layer, 2 * group : 2 * group + 2] = 0.0
        down[layer, features[layer]] = 0.0
    block = block.replace(
        attention=block.attention.replace(out=block.attention.out.replace(kernel=jnp.asarray(out))),
        mlp=block.mlp.replace(down=block.mlp.down.replace(kernel=jnp.asarray(down))),
    )
    return model.replace(blocks=model.blocks.replace(period=(block,)))


def test_heads_and_features_that_say_nothing_go_first():
    """Each layer's own: the function stays the same, and with the first ones kept instead it does not."""
    draw = np.random.default_rng(0)
    quiet = silenced(
        random_model(WIDE), [[0], [1], [1], [0]], [draw.choice(32, 12, replace=False) for _ in range(4)]
    )
    batch, what = packed_batch(WIDE), Cut(heads=2, width=20)
    got, kind = student(quiet, what)
    assert kind.block == config.Block(dataclasses.replace(HEADS, heads=2, kv_heads=1), config.Gated(20))
    np.testing.assert_allclose(logits(got, batch), logits(quiet, batch), atol=2e-5)
    first, _ = student(quiet, dataclasses.replace(what, by="first"))
    assert np.abs(logits(first, batch) - logits(quiet, batch)).max() > 1e-2
    np.testing.assert_array_equal(
        first.blocks.period[0].mlp.up.kernel, quiet.blocks.period[0].mlp.up.kernel[..., :20]
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(got)) == flops.parameters(kind)["total"]


def test_features_of_the_stream():
    """Features that nothing writes or reads go first: all that changes is what norms divide by."""
    model = random_model(dataclasses.replace(WIDE, norm=config.RMSNorm(1e-12)))
    kept = np.sort(np.random.default_rng(1).choice(16, 10, replace=False))
    gone = jnp.asarray(~np.isin(np.arange(16), kept))

    def quiet(name, leaf):
        if name in ("embedding.kernel",) or name.endswith(("out.kernel", "down.kernel")):
            return jnp.where(gone.reshape((1,) * (leaf.ndim - 1) + (16,)), 0.0, leaf)
        if name.endswith(("query.kernel", "key.kernel", "value.kernel", "up.kernel", "gate.kernel")):
            return jnp.where(gone.reshape((1, 16) + (1,) * (leaf.ndim - 2)), 0.0, leaf)
        return jnp.where(gone[:, None], 0.0, leaf) if name == "head.kernel" else leaf

    model = map_named(quiet, model)
    got, kind = student(model, Cut(embed=10))
    assert kind.embed == 10
    np.testing.assert_array_equal(got.embedding.kernel, model.embedding.kernel[:, kept])
    grown = map_named(lambda name, leaf: leaf * (16 / 10) ** 0.5 if name.endswith("scale") else leaf, got)
    batch = packed_batch(WIDE)
    np.testing.assert_allclose(logits(grown, batch), logits(model, batch), atol=2e-5)


def test_the_shortest_period():
    assert pattern([GLOBAL] * 3) == GLOBAL
    assert pattern([GLOBAL, LOCAL] * 2) == config.Pattern((GLOBAL, LOCAL))
    assert pattern([GLOBAL, LOCAL, LOCAL]) == config.Pattern((GLOBAL, LOCAL, LOCAL))


def test_what_cannot_be_cut_is_refused_by_name():
    biased = dataclasses.replace(WIDE, position=config.Alibi())
    mixed = dataclasses.replace(WIDE, block=config.Block(HEADS, config.Moe()))
    for kind, what, message in (
        (WIDE, Cut(layers=(0, 4)), "layers names layer 4: the teacher has 4"),
        (
            WIDE,
            Cut(heads=3),
            "heads is 3: the teacher has 4, 2 to each of 2 key heads; use a multiple of 2 up to 4",
        ),
        (WIDE, Cut(width=33), "width is 33: the teacher has 32"),
        (WIDE, Cut(embed=17), "embed is 17: the teacher has 16"),
        (WIDE, Cut(encoder_layers=(0,)), "a Decoder has one stack"),
        (biased, Cut(heads=2), "heads is 2: Alibi gives each head biases for all layers alike"),
        (mixed, Cut(width=8), "a mixture's experts are not cut"),
        (KINDS["rwkv4"], Cut(embed=8), "embed: of a Rwkv4 whole layers can be cut only"),
        (KINDS["rwkv7"], Cut(layers=(1, 2)), "layers: all layers of a Rwkv7 read the first one's values"),
    ):
        with pytest.raises(UsageError, match=message):
            cut(kind, what)
    with pytest.raises(Failure, match="these weights do not fit this model"):
        student(quantized(random_model(WIDE), config.Rounded()), Cut(layers=(0,)))
