import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from jaxlm.config import Adafactor, AdamW, Constant, Cosine, Lion, Muon
from jaxlm.config.precision import Precision
from jaxlm.layers import names
from jaxlm.train import optimizers, schedules

STEPS = 20
SCHEDULE = Cosine(peak=3e-2, warmup=5)
SHAPES = {
    "embedding.kernel": (11, 8),
    "blocks.period.0.attention.query.kernel": (3, 8, 2, 4),
    "blocks.period.0.attention.out.kernel": (3, 2, 4, 8),
    "blocks.period.0.attention.query.bias": (3, 2, 4),
    "blocks.period.0.mlp.down.kernel": (3, 16, 8),
    "blocks.suffix.0.attention.key.kernel": (8, 2, 4),
    "blocks.suffix.0.norm.scale": (8,),
    "head.kernel": (8, 11),
}


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    flat = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
    return names.to_nested(flat) | {"absent": None}


TARGET, NOISE = tree(1), jax.tree.map(lambda *rows: np.stack(rows), *[tree(2 + i) for i in range(STEPS)])


def descend(transform, parameters):
    """Parameters after 20 updates; gradients are the parameters' own noisy pull to another point."""

    def step(carry, noise):
        parameters, state = carry
        gradients = jax.tree.map(lambda p, t, n: (p - t) * jnp.abs(n), parameters, TARGET, noise)
        updates, state = transform.update(gradients, state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    def train(parameters):
        return jax.lax.scan(step, (parameters, transform.init(parameters)), NOISE)[0]

    return jax.jit(train)(parameters)


def decayed(parameters):
    kernels = {name: name.endswith("kernel") for name in SHAPES}
    return names.map_named(lambda name, _: kernels[name], parameters)


def by_hand(parameters):
    """Muon's axes of the tree above, written out."""
    axes = {
        "blocks.period.0.attention.query.kernel": MuonDimensionNumbers((1,), (2, 3)),
        "blocks.period.0.attention.out.kernel": MuonDimensionNumbers((1, 2), (3,)),
        "blocks.period.0.mlp.down.kernel": MuonDimensionNumbers((1,), (2,)),
        "blocks.suffix.0.attention.key.kernel": MuonDimensionNumbers((0,), (1, 2)),
    }
    return names.map_named(lambda name, _: axes.get(name), parameters)


RATE = schedules.build(SCHEDULE, STEPS)
CASES = {
    "adamw": (
        AdamW(SCHEDULE, b1=0.8, b2=0.9, decay=0.3),
        lambda mask: optax.adamw(RATE, 0.8, 0.9, weight_decay=0.3, mask=mask),
    ),
    "lion": (Lion(SCHEDULE, decay=0.3), lambda mask: optax.lion(RATE, weight_decay=0.3, mask=mask)),
    "adafactor": (
        Adafactor(SCHEDULE, decay=0.3),
        lambda mask: optax.adafactor(RATE, weight_decay_rate=lambda step: 0.3 * RATE(step), weight_decay_mask=mask),
    ),
    "muon": (
        Muon(SCHEDULE, decay=0.3),
        lambda mask: optax.contrib.muon(
            RATE,
            weight_decay=0.3,
            adam_b2=0.95,
            adam_learning_rate=lambda step: 0.1 * RATE(step),
            muon_weight_dimension_numbers=by_hand if mask else None,
        ),
    ),
}


def apart(first, second):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first, second)))


@pytest.mark.parametrize("case", CASES)
def test_equals_optax_for_twenty_steps(case):
    config, alias = CASES[case]
    ours, _ = descend(optimizers.build(config, STEPS), tree(0))
    theirs, _ = descend(alias(decayed), tree(0))
    assert apart(ours, theirs) < 1e-6
    unmasked, _ = descend(alias(None), tree(0))
    assert apart(ours, unmasked) > 1e-2


def test_adafactor_without_decay_is_the_alias():
    ours, _ = descend(optimizers.build(Adafactor(SCHEDULE), STEPS), tree(0))
    theirs, _ = descend(optax.adafactor(RATE), tree(0))
    assert apart(ours, theirs) < 1e-6


def test_muon_updates_are_orthogonal_for_each_layer_and_its_own_axes():
    transform = optimizers.build(Muon(Constant(1.0), iterations=10, decay=0.0), STEPS)
    updates, _ = jax.jit(transform.update)(tree(1), jax.jit(transform.init)(tree(0)), tree(0))
    flat = names.flatten(updates)
    query = np.asarray(flat["blocks.period.0.attention.query.kernel"]).reshape(3, 8, 8)
    out = np.asarray(flat["blocks.period.0.attention.out.kernel"]).reshape(3, 8, 8)
    for layer in (*query, *out, *np.asarray(flat["blocks.period.0.mlp.down.kernel"])):
        singular = np.linalg.svd(layer, compute_uv=False)
        assert singular.min() > 0.5, singular
        assert singular.max() < 1.5, singular
    assert np.linalg.svd(np.asarray(flat["head.kernel"]), compute_uv=False).min() < 0.2


@pytest.mark.parametrize(
    ("name", "shape", "inputs", "outputs"),
    [
        ("blocks.period.0.attention.value.kernel", (3, 8, 2, 4), (-3,), (-2, -1)),
        ("decoder.blocks.prefix.1.cross.key.kernel", (8, 2, 4), (-3,), (-2, -1)),
        ("ahead.1.attention.out.kernel", (2, 4, 8), (-3, -2), (-1,)),
        ("blocks.period.0.moe.up.kernel", (3, 4, 8, 16), (-2,), (-1,)),
        ("blocks.period.0.channel_receptance.kernel", (3, 8, 16), (-2,), (-1,)),
        ("blocks.period.0.out.kernel", (3, 8, 8), (-2,), (-1,)),
    ],
)
def test_axes_by_name(name, shape, inputs, outputs):
    assert optimizers.matrix(name, jnp.zeros(shape)) == MuonDimensionNumbers(inputs, outputs)


@pytest.mark.parametrize(
    "name",
    ["embedding.kernel", "head.kernel", "blocks.period.0.moe.router.kernel", "blocks.period.0.mlp.up.bias"],
)
def test_the_rest_is_no_matrix(name):
    assert optimizers.matrix(name, jnp.zeros((3, 4))) is None


def test_a_kernel_with_too_few_axes_is_refused():
    with pytest.raises(ValueError, match=r"query\.kernel of shape \(8, 8\)"):
        optimizers.matrix("blocks.prefix.0.attention.query.kernel", jnp.zeros((8, 8)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("embedding.kernel", True), ("blocks.0.mlp.up.kernel", True), ("norm.scale", False), ("up.bias", False)],
)
def test_what_decays(name, expected):
    assert optimizers.decays(name) is expected


@pytest.mark.parametrize("case", CASES)
def test_moments_of_bfloat16_parameters(case):
    config, _ = CASES[case]
    precision = Precision(parameters="bfloat16", optimizer="bfloat16")
    parameters, state = descend(optimizers.build(config, STEPS, precision), tree(0, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype(jnp.bfloat16)}
    flat = names.flatten(state)
    first = {leaf.dtype for name, leaf in flat.items() if ".mu." in name}
    second = {leaf.dtype for name, leaf in flat.items() if ".nu." in name or ".v" in name}
    assert first == ({jnp.dtype(jnp.bfloat16)} if case != "adafactor" else set())
    assert second == ({jnp.dtype(jnp.float32)} if case != "lion" else set())


def test_the_learning_rate_can_be_asked_for():
    rate = optimizers.learning_rate(Muon(Cosine(peak=0.5, warmup=4)), 100)
    assert rate(2) == 0.25


def test_state_can_be_shaped_without_arrays():
    transform = optimizers.build(Muon(SCHEDULE), STEPS)
    abstract = jax.eval_shape(transform.init, tree(0))
    assert jax.tree.structure(abstract) == jax.tree.structure(transform.init(tree(0)))
