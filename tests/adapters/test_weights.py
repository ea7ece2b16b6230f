"""Each form of weight against numpy in float64: products, merged matrices, lengths of the right side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.dora import initial_dora
from jaxlm.adapters.ia3 import initial_ia3
from jaxlm.adapters.lora import initial_lora
from jaxlm.adapters.vera import initial_vera
from jaxlm.config.errors import UsageError
from jaxlm.layers.projection import Dense, project
from tests.tiny import CALL

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
INWARD = (8, 4, 5), ("embed", "heads", "head"), 1, "rpe,ehd->rphd"
OUTWARD = (4, 5, 8), ("heads", "head", "embed"), 2, "rphd,hde->rpe"
SIDES = [pytest.param(INWARD, id="inward"), pytest.param(OUTWARD, id="outward")]


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def dense(side):
    shape, axes, inputs, _ = side
    return Dense(normal(*shape), normal(*shape[inputs:]), axes, inputs)


def matrix(weight, leaf=None):
    """Inputs by outputs, float64."""
    whole = np.asarray(weight.dense() if leaf is None else leaf, np.float64)
    return whole.reshape(np.prod(whole.shape[: weight.inputs], dtype=int), -1)


def inputs_of(side):
    return normal(2, 3, *side[0][: side[2]])


def apply_equals(weight, side, wanted):
    """`dot` and `dense` are the matrix `wanted`, of inputs by outputs, and the bias is added."""
    x = inputs_of(side)
    flat = np.asarray(x, np.float64).reshape(6, -1) @ wanted + np.asarray(weight.bias, np.float64).reshape(-1)
    got = np.asarray(project(weight, x, side[3], CALL)).reshape(6, -1)
    limit = 1e-6 * max(1.0, np.abs(flat).max())
    assert np.abs(got - flat).max() <= limit
    assert np.abs(matrix(weight) - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("scaling", "scale"), [("rank", 16 / 4), ("root", 16 / 2)])
def test_lora(side, scaling, scale):
    base = dense(side)
    weight = initial_lora(base, config.Lora(rank=4, scaling=scaling), KEY, "w")
    assert weight.scale == scale
    apply_equals(weight, side, matrix(base))
    weight = weight.replace(b=normal(*weight.b.shape))
    low = matrix(weight, weight.a) @ np.asarray(weight.b, np.float64).reshape(4, -1)
    apply_equals(weight, side, matrix(base) + scale * low)


@pytest.mark.parametrize("side", SIDES)
def test_dora(side):
    """Lengths are of outputs, over the inputs: the matrix is not square, the other side would not even fit."""
    base = dense(side)
    weight = initial_dora(base, config.Dora(rank=3, alpha=6.0), KEY, "w")
    outputs = side[0][side[2] :]
    assert weight.magnitude.shape == outputs
    np.testing.assert_allclose(weight.magnitude.reshape(-1), np.linalg.norm(matrix(base), axis=0), rtol=1e-6)
    apply_equals(weight, side, matrix(base))
    weight = weight.replace(b=normal(*weight.b.shape), magnitude=normal(*outputs))
    whole = matrix(base) + 2.0 * matrix(weight, weight.a) @ np.asarray(weight.b, np.float64).reshape(3, -1)
    wanted = whole / np.linalg.norm(whole, axis=0) * np.asarray(weight.magnitude, np.float64).reshape(-1)
    apply_equals(weight, side, wanted)
    apply_equals(weight.settled(), side, wanted)
    apply_equals(weight.neutral(), side, matrix(base))
    transposed = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    assert np.abs(transposed * np.asarray(weight.magnitude).reshape(-1) - wanted).max() > 0.1


def test_lengths_are_no_part_of_the_gradient():
    """Section 4.3: the gradient of a and b is that with |W + s a b| as a number."""
    base, x = dense(INWARD), inputs_of(INWARD)
    weight = initial_dora(base, config.Dora(rank=3), KEY, "w").replace(b=normal(3, 4, 5))
    length = np.linalg.norm(matrix(weight.replace(magnitude=weight.settled().length)), axis=0).reshape(4, 5)

    def loss(a, b):
        return jnp.sum(jnp.sin(project(weight.replace(a=a, b=b), x, INWARD[3], CALL)))

    def plain(a, b, length):
        kernel = base.kernel + weight.scale * jnp.einsum("er,rhd->ehd", a, b)
        y = jnp.einsum("rpe,ehd->rphd", x, kernel * (weight.magnitude / length)[None])
        return jnp.sum(jnp.sin(y + base.bias[None, None]))

    def through(a, b):
        kernel = base.kernel + weight.scale * jnp.einsum("er,rhd->ehd", a, b)
        return plain(a, b, jnp.sqrt(jnp.sum(jnp.square(kernel), axis=0)))

    got, wanted, other = (
        jax.grad(f, (0, 1))(weight.a, weight.b) for f in (loss, lambda a, b: plain(a, b, length), through)
    )
    for one, two, three in zip(got, wanted, other, strict=True):
        limit = 2e-5 * np.abs(two).max()
        assert np.abs(one - two).max() <= limit
        assert np.abs(three - two).max() > 100 * limit


@pytest.mark.parametrize("side", SIDES)
def test_vera(side):
    base = dense(side)
    weight = initial_vera(base, config.Vera(rank=6, seed=3), 20, "w")
    apply_equals(weight, side, matrix(base))
    weight = weight.replace(inner=normal(6), outer=normal(*weight.outer.shape))
    rows, columns = matrix(base).shape
    a, b = (np.asarray(x, np.float64) for x in (weight.shared.a(rows), weight.shared.b(columns)))
    low = (a * np.asarray(weight.inner)) @ b * np.asarray(weight.outer).reshape(-1)
    apply_equals(weight, side, matrix(base) + low)
    np.testing.assert_array_equal(weight.shared.a(rows + 3)[:rows], weight.shared.a(rows))
    assert not jax.tree.leaves(weight.shared)
    assert np.abs(np.std(weight.shared.a(20)) - (2 / 20) ** 0.5) < 0.05


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("of", ["inputs", "outputs"])
def test_ia3(side, of):
    base = dense(side)
    weight = initial_ia3(base, of)
    apply_equals(weight, side, matrix(base))
    weight = weight.replace(factor=normal(*weight.factor.shape))
    factor = np.asarray(weight.factor, np.float64).reshape(-1)
    apply_equals(weight, side, matrix(base) * (factor if of == "outputs" else factor[:, None]))
    bias = np.asarray(base.bias) * (np.asarray(weight.factor) if of == "outputs" else 1.0)
    np.testing.assert_allclose(weight.bias, bias, rtol=1e-6)


def test_size_of_outputs_by_rank():
    """rsLoRA, figure 1: by the root of the rank outputs are of one size, by the rank they shrink with it."""
    width, x = 1024, normal(1, 64, 1024)

    def size(rank, scaling):
        base = Dense(jnp.zeros((width, width)), None, ("embed", "mlp"))
        weight = initial_lora(base, config.Lora(rank=rank, scaling=scaling), KEY, "w")
        a, b = normal(width, rank) / width**0.5, normal(rank, width)
        return float(jnp.std(project(weight.replace(a=a, b=b), x, "rpe,em->rpm", CALL)))

    by_rank = [size(rank, "rank") for rank in (4, 64, 1024)]
    by_root = [size(rank, "root") for rank in (4, 64, 1024)]
    np.testing.assert_allclose(by_rank, [16 / rank**0.5 for rank in (4, 64, 1024)], rtol=0.35)
    np.testing.assert_allclose(by_root, [16.0] * 3, rtol=0.35)
    assert by_rank[0] > 10 * by_rank[2]
    assert max(by_root) < 1.6 * min(by_root)


def test_one_adapter_is_not_several():
    weight = initial_lora(dense(INWARD), config.Lora(rank=2), KEY, "w")
    with pytest.raises(UsageError, match="one adapter"):
        weight.dot(inputs_of(INWARD), INWARD[3], CALL, adapters=jnp.zeros(2, int))
