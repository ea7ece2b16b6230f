"""muP at its base width is the standard parametrization, bit for bit; at others it is table 8 of its paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.cli import main
from jaxlm.config.check import check
from jaxlm.config.codec import from_json, to_json, what_hash
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import apply
from jaxlm.config.parametrization import score_scale, times_base
from jaxlm.families.known import published
from jaxlm.layers.block import Block
from jaxlm.layers.names import flatten
from jaxlm.models import build
from jaxlm.study.ladder import widened
from jaxlm.train import optimizers
from tests import base
from tests.tiny import CALL, random_ids, random_model, tokens

BLOCK = config.Block(config.Attention(heads=4, kv_heads=2, head=8, bias="qkv"), config.Gated(64, bias="all"))
NARROW = config.Decoder(
    vocab=64, embed=32, layers=2, block=BLOCK, position=config.Learned(16), head=config.Untied()
)
MUP = config.MuP(embed=32, head=8)
RATE, DECAY = 0.01, 0.1


def mup(model, parametrization=MUP):
    return dataclasses.replace(model, parametrization=parametrization)


@pytest.fixture(scope="module")
def made():
    """Models by (times the base width, whether by muP), of the same key."""
    return {
        (times, by_mup): jax.jit(build, static_argnums=0)(mup(kind) if by_mup else kind, jax.random.key(0))
        for times, kind in ((1, NARROW), (4, widened(NARROW, 128)))
        for by_mup in (False, True)
    }


@jax.jit
def logits(model):
    inputs = tokens(random_ids(2, 12))
    return model.logits(model(inputs, CALL).hidden, CALL)


def test_at_the_base_width_everything_is_standard(made):
    standard, by_mup = flatten(made[1, False]), flatten(made[1, True])
    assert standard.keys() == by_mup.keys()
    for name, leaf in standard.items():
        np.testing.assert_array_equal(leaf, by_mup[name])
    np.testing.assert_array_equal(logits(made[1, False]), logits(made[1, True]))
    assert times_base(mup(NARROW)) == 1.0
    assert score_scale(MUP, 8, None) is None


def test_wide_models_begin_as_table_8_says(made):
    standard, by_mup = flatten(made[4, False]), flatten(made[4, True])
    for name, leaf in standard.items():
        factor = 2.0 if name == "head.kernel" else 1.0  # of the base's variance, a quarter of its inputs
        np.testing.assert_allclose(by_mup[name], factor * leaf, rtol=1e-6)
    assert float(jnp.std(by_mup["head.kernel"])) == pytest.approx(32**-0.5, rel=0.05)
    assert float(jnp.std(by_mup["blocks.period.0.mlp.up.kernel"])) == pytest.approx(128**-0.5, rel=0.05)


@pytest.mark.parametrize("head", [config.Tied(), config.Untied()])
def test_scores_of_wide_models_are_divided(head):
    kind = dataclasses.replace(widened(NARROW, 128), head=head)
    model = random_model(kind)
    same = model.replace(config=mup(kind))
    np.testing.assert_allclose(logits(same), logits(model) / 4, rtol=1e-5, atol=1e-6)


def test_scores_of_wider_heads_are_divided_by_their_features():
    assert score_scale(MUP, 32, None) == pytest.approx(8**0.5 / 32)
    assert score_scale(MUP, 32, 0.25) == pytest.approx(0.125)
    assert score_scale(config.Standard(), 32, None) is None
    kind = dataclasses.replace(NARROW, block=dataclasses.replace(BLOCK, attention=config.Attention(4, 2, 32)))

    def scales(parametrization):
        model = jax.eval_shape(lambda: build(mup(kind, parametrization), jax.random.key(0)))
        return {
            block.attention.config.scale for block in jax.tree.leaves(model, is_leaf=is_block) if is_block(block)
        }

    assert [*scales(MUP)] == pytest.approx([8**0.5 / 32])
    assert scales(config.MuP(embed=32, head=32)) == scales(config.Standard()) == {None}


def is_block(node):
    return isinstance(node, Block)


def test_layers_matrices_learn_slower_and_decay_alike(made):
    """One step of Adam moves every number by the learning rate: what is added is decay."""
    model = made[4, True]
    gradients = jax.tree.map(jnp.ones_like, model)
    adam = config.AdamW(config.Constant(RATE), decay=DECAY)

    def moved(hidden):
        transform = optimizers.build(adam, 10, hidden=hidden)
        return flatten(jax.jit(lambda model: transform.update(gradients, transform.init(model), model)[0])(model))

    slow, usual, before = moved(1 / 4), moved(1.0), flatten(model)
    hidden = {"query", "key", "value", "out", "up", "gate", "down"}
    slower = 0
    for name, leaf in before.items():
        *path, last = name.split(".")
        matrix = last == "kernel" and path[-1] in hidden and path[0] == "blocks"
        slower += matrix
        decay = DECAY if last == "kernel" else 0.0
        np.testing.assert_allclose(
            slow[name], -RATE * ((0.25 if matrix else 1.0) + decay * leaf), rtol=1e-5, atol=1e-8
        )
        np.testing.assert_allclose(usual[name], -RATE * (1.0 + decay * leaf), rtol=1e-5, atol=1e-8)
    assert slower == 7


def test_without_a_factor_the_optimizer_is_optaxs_own(made):
    model = made[1, True]
    adam = config.AdamW(config.Constant(RATE), decay=DECAY)
    ours = optimizers.build(adam, 10, hidden=1 / times_base(model.config)).init(model)
    theirs = optax.adamw(RATE, weight_decay=DECAY, mask=optimizers.decay_mask).init(model)
    assert jax.tree.structure(ours[0]) == jax.tree.structure(theirs[0])
    with pytest.raises(UsageError, match="Lion has no rule"):
        optimizers.build(config.Lion(), 10, hidden=0.5)


def test_the_default_is_no_part_of_a_hash_and_mup_is():
    tree = base.experiment()
    standard = dataclasses.replace(tree, model=dataclasses.replace(tree.model, parametrization=config.Standard()))
    by_mup = apply(tree, ["model.parametrization:mup", "--model.parametrization.embed", "64"])
    assert what_hash(standard) == what_hash(tree) != what_hash(by_mup)
    assert by_mup.model.parametrization == config.MuP(embed=64)
    assert from_json(to_json(by_mup)) == by_mup
    check(by_mup)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optimizer:muon"], "optimizer is Muon"),
        (["optimizer:lion"], "optimizer is Lion"),
        (["optimizer:adafactor"], "optimizer is Adafactor"),
        (["model.position:relative_bias"], "RelativeBias"),
        (["model.position:transformer_xl"], "TransformerXl"),
        (["model.block.mlp:moe"], "router"),
        (["model.embedding:scaled"], "Scaled"),
        (["model.classifier:classifier"], "classifiers"),
        (["model.head:transformed"], "tied and untied"),
    ],
)
def test_what_mup_has_no_rule_for_is_refused(words, says):
    tree = apply(base.experiment(), ["model.parametrization:mup", *words])
    with pytest.raises(UsageError, match=says):
        check(tree)


def test_no_family_of_others_has_it(capsys):
    kind = dataclasses.replace(base.experiment().model, head=config.Untied())
    published(kind, 256)
    with pytest.raises(UsageError):
        published(mup(kind, config.MuP(embed=64)), 256)
    assert main(["show", "tests/base.py", "model.parametrization:mup"]) == 0
    assert "mup" in capsys.readouterr().out
