"""muP's coordinate check, its power, and the learning rate that is best at several widths."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.study.coordinates import sizes, slopes
from tests.experiments.scripts import load

MUP = load("mup")


@functools.cache
def measured(name: str, width: int, layers: int = 1):
    model = MUP.model(width, MUP.PARAMETRIZATIONS[name], layers)
    return sizes(model, MUP.adam(3e-3), MUP.batch(jnp.zeros((), jnp.int32)), seeds=3)


def test_activations_do_not_depend_on_the_width():
    found = slopes({width: measured("mup", width) for width in (64, 128, 512)})
    assert found.keys() == {"attention.0", "mlp.0", "residual.0", "scores"}
    for tap, values in found.items():
        assert len(values) == (4 if tap == "scores" else 5)
        assert np.all(np.abs(values) <= 0.1), tap
    # At the base width both are one: a single model more shows that the check has power.
    standard = slopes({64: measured("mup", 64), 128: measured("standard", 128)})
    assert max(values.max() for values in standard.values()) > 0.3
    assert abs(standard["residual.0"][0]) < 0.1  # at the start nothing has been learned


@pytest.mark.nightly
@pytest.mark.parametrize("layers", [1, 2])
def test_at_all_widths_and_with_more_layers(layers):
    widths = (64, 128, 256, 512)
    for tap, values in slopes({width: measured("mup", width, layers) for width in widths}).items():
        assert np.all(np.abs(values) <= 0.1), tap
    standard = slopes({width: measured("standard", width, layers) for width in widths})
    assert standard["residual.0"][-1] > 0.3
    assert standard["scores"][-1] > 0.7


@pytest.mark.nightly
def test_each_rule_is_needed():
    """Without one of its parts, something grows or vanishes."""
    batch = MUP.batch(jnp.zeros((), jnp.int32))

    def broken(width, **optimizer):
        model = MUP.model(width, config.MuP(embed=64, head=16))
        return sizes(model, config.AdamW(config.Constant(3e-3), decay=0.0, **optimizer), batch, seeds=2)

    assert max(np.abs(v).max() for v in slopes({w: broken(w) for w in (64, 256)}).values()) < 0.1
    huge = slopes({w: broken(w, epsilon=1e-2) for w in (64, 256)})  # gradients shrink with the width
    assert min(values.min() for values in huge.values()) < -0.1


@pytest.mark.nightly
def test_the_best_rate_stays_best():
    _, best = MUP.transfer((64, 128, 256), 100, 1)
    assert max(best["mup"]) - min(best["mup"]) <= 1
    assert max(best["standard"]) - min(best["standard"]) > 1
    assert best["standard"][0] == best["mup"][0]
