"""Every method that a config can name makes the structure that a run is read back into."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.quantize import grid, hqq
from jaxlm.quantize.build import quantized
from jaxlm.quantize.methods import choose
from tests.tiny import CALL, GLOBAL, SIZES, random_ids, random_model, tokens

KIND = config.Decoder(**SIZES, layers=2, block=GLOBAL)
FORMAT = config.Integers(4, symmetric=False, group=8)
RULES = (config.Rule(format=FORMAT), config.Rule("^embedding$"))
ROWS = tokens(random_ids(16, 24))


def chosen(how):
    return choose(random_model(KIND), ROWS, CALL, how, say=str)


@pytest.mark.parametrize(
    "how",
    [
        config.Rounded(RULES, method=config.Nearest(), cache="int8"),
        config.Rounded(RULES, method=config.Hqq()),
        config.Rounded(RULES, method=config.Gptq(damp=0.1), smoothing=config.Smooth()),
        config.Rounded(RULES, method=config.Awq(), activations=config.Dynamic()),
        config.Rounded(RULES[:1], activations=config.Static(range="mse")),
    ],
    ids=["nearest", "hqq", "gptq", "awq", "static"],
)
def test_what_is_chosen_is_what_a_run_is_read_into(how):
    model, errors = chosen(how)
    wanted = jax.eval_shape(lambda: quantized(random_model(KIND), how))
    assert jax.tree.structure(model) == jax.tree.structure(wanted)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(model)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(wanted)
    ]
    assert len(errors) == 2 * 7
    scores = model.logits(model(ROWS, CALL).hidden, CALL)
    assert np.isfinite(scores).all()


def test_activations_as_each_rule_says():
    rules = (config.Rule("down$", activations=config.Dynamic(4)), *RULES[:1])
    how = config.Rounded((*rules, config.Rule("^embedding$", activations=config.NoActivations())), config.Static())
    model, _ = chosen(how)
    block = model.blocks.period[0]
    assert block.mlp.down.activations == config.Dynamic(4)
    assert block.mlp.down.activation is None
    assert block.mlp.up.activations == config.Static()
    assert np.isfinite(block.mlp.up.activation).all()
    assert model.embedding.activations == config.NoActivations()
    assert jax.tree.structure(model) == jax.tree.structure(quantized(random_model(KIND), how))
    alike, _ = chosen(dataclasses.replace(how, rules=(config.Rule("down$"), *how.rules[1:])))
    np.testing.assert_array_equal(alike.blocks.period[0].mlp.up.activation[0], block.mlp.up.activation[0])
    assert alike.blocks.period[0].mlp.down.activation is not None
    trained = quantized(random_model(KIND), config.Aware(rules)).blocks.period[0].mlp
    assert (trained.down.activations, trained.up.activations) == (config.Dynamic(4), config.NoActivations())
    with pytest.raises(UsageError, match="static activations are found by a calibration"):
        quantized(random_model(KIND), config.Aware((config.Rule(activations=config.Static()),)))


def test_codes_are_the_method_s():
    kernel = random_model(KIND).blocks.period[0].mlp.up.kernel[1]
    nearest, other = (
        chosen(config.Rounded(RULES, method=method))[0].blocks.period[0].mlp.up.dense()[1]
        for method in (config.Nearest(), config.Hqq())
    )
    np.testing.assert_array_equal(nearest, grid.rounded(kernel, FORMAT))
    codes, scales = jax.jit(hqq.rounded, static_argnums=1)(kernel, FORMAT)
    np.testing.assert_array_equal(other, grid.values(codes, FORMAT, scales))
    assert (np.asarray(nearest) != np.asarray(other)).any()


def test_no_regular_expression():
    how = config.Rounded((dataclasses.replace(RULES[0], targets="("),))
    with pytest.raises(UsageError, match=r"quantization\.rules\.0\.targets='\(' is no regular expression"):
        quantized(random_model(KIND), how)
