"""Studies of rounding: they measure what is stored, and what is planted changes nothing but the rounding."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.contracts import Batch
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.objectives.build import build as build_objective
from jaxlm.quantize.build import quantized
from jaxlm.quantize.smooth import plant_outliers
from tests.experiments.scripts import load
from tests.tiny import CALL, random_ids, random_model, tokens

small = load("small_models")
bits, curve = load("bits"), load("smoothing")
ROWS, LENGTH = 8, 16
KIND = config.Decoder(
    vocab=64, embed=64, layers=2, block=config.Block(config.Attention(2, 2, 32), config.Gated(64))
)


@functools.cache
def subject():
    """A drawn model, and drawn text."""
    rows, numbers = tokens(random_ids(ROWS, LENGTH)), jnp.arange(ROWS)
    held_out = Batch(
        inputs=rows,
        source=None,
        targets=jnp.roll(rows.ids, -1, 1),
        weights=jnp.ones((ROWS, LENGTH)),
        rows=numbers,
        documents=jnp.broadcast_to(numbers[:, None], (ROWS, LENGTH)),
        extra={},
    )
    objective = build_objective(config.Autoregressive(), KIND)
    return small.Subject(random_model(KIND), CALL, rows, objective, (held_out,))


def test_matrices_lose_what_is_stored():
    one = subject()
    stored = quantized(one.model, config.Rounded((config.Rule(format=bits.format_of(3)),)))
    whole, lost = one.loss(one.model), one.loss(stored)
    assert one.loss(small.plain(stored)) == pytest.approx(lost, rel=1e-6)
    assert abs(lost - whole) > 1e-3 * whole
    assert bits.rounded(one, 3, config.Nearest(), False) == pytest.approx(lost, rel=1e-6)


def test_planted_outliers_are_undone_by_every_alpha():
    """The scales of equation 4 grow by the factor, whatever alpha is."""
    one = subject()
    planted, whole = plant_outliers(one.model, 4, 30.0), one.loss(one.model)
    assert one.loss(planted) == pytest.approx(whole, rel=1e-6)
    before = weights_of(one.model)
    halfway = map_weights(lambda name, _: before[name], planted)
    assert abs(one.loss(halfway) - whole) > 1e-3 * whole
    for smoothing in (config.Smooth(0.0), config.Smooth(0.75), config.NoSmoothing()):
        found, clean = (curve.loss("W8A8 static", one, model, smoothing) for model in (planted, one.model))
        same = abs(found - clean) < 2e-5 * whole
        assert same == isinstance(smoothing, config.Smooth)
        assert same or abs(found - clean) > 2e-3 * whole


def test_the_tables():
    rng = np.random.default_rng(0)
    names = [*bits.METHODS, *bits.ONWARD, *bits.AWARE]
    whole = 3 + rng.normal(size=4)
    found = {name: whole + 0.1 + 1e-3 * rng.normal(size=4) for name in names}
    found["gptq"] = found["gptq"] - 0.05
    found["lsq"] = found["lsq"] + 0.05
    lines = {line[1]: line for line in bits.lines(3, found, whole)}
    assert list(lines) == names
    assert lines["nearest"][-1] == "baseline"
    assert lines["gptq"][-1] == "better"
    assert lines["lsq"][-1] == "worse"
    assert lines["hqq"][-1] == "inside noise"
    assert float(lines["gptq"][3]) == pytest.approx(0.05, abs=2e-3)
    pairs = {line[1]: line[-1] for line in bits.ordered(3, found)}
    assert pairs["gptq - awq"] == "better"
    assert pairs["lsq - gptq, trained on"] == "worse"


def test_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    values = np.array([3.0, 3.1])
    found = {b: dict.fromkeys((*bits.METHODS, *bits.AWARE), values + 0.1) for b in bits.BITS}
    small.save(tmp_path / "bits.png", lambda figure: bits.draw(figure, found, values), (5, 4))
    curves = {form: dict.fromkeys(curve.arms(), values + 0.1) for form in curve.FORMS}
    clean = dict.fromkeys(curve.FORMS, values)
    small.save(tmp_path / "curve.png", lambda figure: curve.draw(figure, curves, clean, values), (7, 3))
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("bits.png", "curve.png"))
