"""Training through rounding: the forward pass is the stored one, bit for bit; gradients are the papers'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config import Aware, Dynamic, Integers, Lsq, Nf4, Rule
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings, specs
from jaxlm.layers.names import flatten
from jaxlm.layers.projection import Dense, project
from jaxlm.layers.weights import map_weights
from jaxlm.quantize import grid, lsq
from jaxlm.quantize.aware import FakeQuant, stored
from jaxlm.quantize.build import quantized
from jaxlm.quantize.weight import Quantized
from jaxlm.train.optimizers import decays
from tests.tiny import CALL, GLOBAL, SIZES, layout, random_ids, random_model, tokens

SMALL = config.Decoder(**SIZES, layers=2, block=GLOBAL)
INPUTS = tokens(random_ids(4, 6))
logits = jax.jit(lambda m: m.logits(m(INPUTS, CALL).hidden, CALL))
export = jax.jit(stored)
WAYS = {
    "int8": Aware(),
    "int3": Aware((Rule(format=Integers(3, symmetric=False, group=8)),)),
    "nf4": Aware((Rule(format=Nf4(8)),)),
    "lsq": Aware((Rule(format=Integers(4)),), scales=Lsq()),
    "lsq group": Aware((Rule(format=Integers(4, group=8)), Rule("^embedding$", Integers(8))), scales=Lsq()),
    "lsq tensor": Aware((Rule(format=Integers(4, group=-1)),), scales=Lsq()),
    "dynamic": Aware(activations=Dynamic()),
}


def test_the_papers_gradients():
    """LSQ, equations 3 and 5, where Q_N = 4 and Q_P = 3."""
    v = jnp.array([[-10.0], [-1.3], [0.2], [0.7], [3.4], [9.0]])
    values, pull = jax.vjp(lambda w, s: lsq.learned(w, Integers(3), s, 6), v, jnp.ones((1, 1)))
    np.testing.assert_array_equal(values[:, 0], [-4, -1, 0, 1, 3, 3])
    each = [pull(jnp.eye(6)[place][:, None]) for place in range(6)]
    to_scale = np.array([float(ds[0, 0]) for _, ds in each]) * np.sqrt(6 * 3)
    np.testing.assert_allclose(to_scale, [-4, 0.3, -0.2, 0.3, 3, 3], atol=1e-6)
    np.testing.assert_array_equal([float(dw[place, 0]) for place, (dw, _) in enumerate(each)], [0, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("group", [0, 8, -1])
def test_learned_steps_of_groups(group):
    """Against plain numpy: where they begin, and gradients as sums over what shares them."""
    rng = np.random.default_rng(0)
    matrix, g = (rng.standard_normal((32, 6)).astype(np.float32) for _ in range(2))
    format, most = Integers(3, group=group), 3
    sharing = {0: 32, 8: 8, -1: 32 * 6}[group]
    axes = (0, 1, 2) if group == -1 else (1,)
    grouped = matrix.reshape(-1, group if group > 0 else 32, 6)
    scale = 2 * np.abs(grouped).mean(axis=axes, keepdims=True) / np.sqrt(most)
    first = lsq.initial_scale(jnp.asarray(matrix), format)
    np.testing.assert_allclose(first, scale[:, 0], rtol=1e-6)
    v = grouped / scale * 2  # steps half as long: some numbers are clipped
    level = np.clip(np.rint(v), -4, 3)
    inside = (v >= -4) & (v <= 3)
    ds = np.sum(g.reshape(v.shape) * np.where(inside, level - v, level), axis=axes) / np.sqrt(sharing * most)
    values, pull = jax.vjp(lambda w, s: lsq.learned(w, format, s, sharing), jnp.asarray(matrix), first / 2)
    np.testing.assert_allclose(values, (level * scale / 2).reshape(32, 6), rtol=1e-5)
    got = pull(jnp.asarray(g))
    np.testing.assert_array_equal(got[0], g * inside.reshape(32, 6))
    np.testing.assert_allclose(np.ravel(got[1]), np.ravel(ds), rtol=1e-4, atol=1e-5)
    assert 0.5 < inside.mean() < 0.95


def test_a_fitted_range_clips_nothing_and_a_narrower_one_does():
    """The largest number of a group, which rounding may put a little beyond the range, has its gradient too."""
    matrix = jnp.asarray(np.random.default_rng(1).standard_normal((64, 50)), jnp.float32)
    for format in (Integers(8), Integers(4, symmetric=False), Nf4(16)):
        scales = grid.fit(matrix, format)
        slope = jax.grad(lambda w, s=scales, f=format: jnp.sum(lsq.straight_through(w, f, s)))(matrix)
        np.testing.assert_array_equal(slope, np.ones((64, 50)))
    narrow = grid.Scales(grid.fit(matrix, Integers(4)).scale / 2)
    slope = jax.grad(lambda w: jnp.sum(lsq.straight_through(w, Integers(4), narrow)))(matrix)
    v = np.asarray(matrix) / np.asarray(narrow.scale)
    np.testing.assert_array_equal(slope, (v >= -8.5) & (v <= 7.5))
    assert 0.8 < np.mean(slope) < 1


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.nightly) if way in ("nf4", "lsq", "lsq tensor") else way for way in WAYS],
)
def test_what_is_trained_is_what_is_stored(way):
    """Bit for bit, weights scanned and alone; outputs are those of the rounded numbers."""
    aware = quantized(random_model(SMALL), WAYS[way])
    small = export(aware)
    trained, kept = {}, {}
    map_weights(lambda name, weight: trained.setdefault(name, weight), aware)
    map_weights(lambda name, weight: kept.setdefault(name, weight), small)
    changed = [name for name, weight in trained.items() if isinstance(weight, FakeQuant)]
    assert changed == [name for name, weight in kept.items() if isinstance(weight, Quantized)] != []
    dense = jax.jit(lambda weights: [weight.dense() for weight in weights])
    for faked, real in zip(*(dense([found[name] for name in changed]) for found in (trained, kept)), strict=True):
        np.testing.assert_array_equal(faked, real)
    wanted = logits(aware)
    as_dense = map_weights(lambda _, w: Dense(w.dense(), w.bias, w.axes, w.inputs), small)
    if WAYS[way].activations == config.NoActivations():
        np.testing.assert_array_equal(wanted, logits(as_dense))
    assert np.abs(wanted - logits(small)).max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
    assert np.abs(wanted - logits(random_model(SMALL))).max() > 1e-3


def test_training_moves_weights_and_steps_and_decays_no_step():
    model = quantized(random_model(SMALL), Aware((Rule(format=Integers(2)),), scales=Lsq()))
    target = logits(random_model(SMALL, 1))
    loss = jax.jit(jax.value_and_grad(lambda m: jnp.mean(jnp.square(logits(m) - target))))
    optimizer = optax.adam(1e-2)
    state, losses = optimizer.init(model), []
    for _ in range(8):
        value, slope = loss(model)
        losses.append(float(value))
        updates, state = optimizer.update(slope, state)
        model = optax.apply_updates(model, updates)
    assert losses[-1] < 0.9 * losses[0]
    leaves = flatten(slope)
    steps = [name for name in leaves if name.endswith(".scale") and "norm" not in name]
    assert len(steps) == 7
    for name in steps:
        assert np.linalg.norm(leaves[name]) > 0
        assert not decays(name)
        assert decays(name.removesuffix("scale") + "base.kernel")
    np.testing.assert_allclose(logits(export(model)), logits(model), atol=2e-5 * float(np.std(target)) + 2e-5)


@pytest.mark.parametrize(
    ("way", "shape"),
    [
        ("int8", "down"),
        ("lsq group", "query"),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (("lsq", "down"), ("lsq group", "down"), ("dynamic", "down"), ("int8", "query"))
        ),
    ],
)
def test_on_eight_devices(way, shape):
    """Within `spmd`, where a device may have a part of what shares a scale."""
    mesh = layout(data=2, fsdp=2, tensor=2)
    rng = np.random.default_rng(2)
    dims, axes = {"down": ((32, 16), ("mlp", "embed")), "query": ((16, 4, 8), ("embed", "heads", "head"))}[shape]
    spec, inward = {
        "down": ("rpm,me->rpe", ("row", "pos", "mlp")),
        "query": ("rpe,ehd->rphd", ("row", "pos", "features")),
    }[shape]
    result = ("row", "tokens") if shape == "down" else ("row", "pos", "heads")
    weight = Dense(jnp.asarray(rng.standard_normal(dims), jnp.float32), None, axes, 1)
    weight = FakeQuant.of(weight, WAYS[way].rules[0].format, WAYS[way].activations, WAYS[way].scales)
    x = jnp.asarray(rng.standard_normal((8, 2, dims[0])), jnp.float32)
    call = dataclasses.replace(CALL, layout=mesh)

    one = jax.jit(lambda w, x: project(w, x, spec, CALL))(weight, x)
    inside = mesh.spmd(
        lambda w, x: project(w, x, spec, call),
        (specs(weight, mesh), mesh.spec(inward, x.shape)),
        mesh.spec(result, one.shape[: len(result)]),
    )
    got = jax.jit(inside)(jax.device_put(weight, shardings(weight, mesh)), x)
    np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-5)


def test_what_cannot_be():
    model = random_model(SMALL)
    with pytest.raises(UsageError, match="lsq learns the step of symmetric"):
        quantized(model, Aware((Rule(format=Nf4(8)),), scales=Lsq()))
    weight = quantized(model, Aware()).blocks.period[0].mlp.up
    one = jax.tree.map(lambda leaf: leaf[0], weight)
    with pytest.raises(UsageError, match="among adapters"):
        project(one, jnp.ones((1, 1, 16)), "rpe,em->rpm", CALL, adapters=jnp.zeros(1, int))
