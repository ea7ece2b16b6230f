"""Products with weights against einsum in float64; their formats; how a projection adds its bias."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers import products
from jaxlm.layers.products import contract
from jaxlm.layers.projection import Dense, look_up, project
from tests.tiny import CALL

SHAPES = {
    "rpe,ehd->rphd": ((2, 3, 8), (8, 4, 5)),
    "rphd,hde->rpe": ((2, 3, 4, 5), (4, 5, 8)),
    "te,ve->tv": ((6, 8), (7, 8)),
}


def operands(spec, dtype="float32"):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES[spec]]


@pytest.mark.parametrize("spec", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_of_einsum(spec, dtype):
    x, kernel = operands(spec, dtype)
    weigh = jnp.cos(jnp.arange(contract(x, kernel, spec).size, dtype=jnp.float32))

    def loss(product):
        return lambda x, k: jnp.sum(product(x, k).astype(jnp.float32).reshape(-1) * weigh)

    gradients = jax.grad(loss(lambda x, k: contract(x, k, spec)), argnums=(0, 1))(x, kernel)
    wide = [np.asarray(a, np.float64) for a in (x, kernel)]
    cotangent = np.asarray(weigh.astype(dtype), np.float64).reshape(contract(x, kernel, spec).shape)
    left, right = spec.split("->")[0].split(",")
    result = spec.split("->")[1]
    wanted = np.einsum(spec, *wide)
    wanted_gradients = (
        np.einsum(f"{result},{right}->{left}", cotangent, wide[1]),
        np.einsum(f"{result},{left}->{right}", cotangent, wide[0]),
    )
    unit = 2**-8 if dtype == "bfloat16" else 1e-6
    for got, exact in zip((contract(x, kernel, spec), *gradients), (wanted, *wanted_gradients), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=unit * np.abs(exact).max())


def dots(jaxpr):
    """Every product, those of other backends included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from dots(inner)


@pytest.mark.parametrize("spec", SHAPES)
def test_what_other_backends_compute_is_the_same(spec):
    """CPUs multiply matrices, others the dimensions as they are: this machine runs only the former."""
    x, kernel = operands(spec)
    count, transposed = products._parse(spec)
    more = {"count": count, "transposed": transposed}
    flat, whole = products._flat(x, kernel, **more), products._whole(x, kernel, **more)
    np.testing.assert_allclose(whole, flat, atol=1e-5)
    cotangent = jnp.cos(jnp.arange(flat.size, dtype=jnp.float32)).reshape(flat.shape)
    backward = (products._flat_backward, products._whole_backward)
    for one, other in zip(*(f(x, kernel, cotangent, **more) for f in backward), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_backward_products_take_narrow_operands():
    """Float32 cotangents would make the backward pass cost twice as much."""
    x, kernel = operands("te,ve->tv", "bfloat16")
    jaxpr = jax.make_jaxpr(jax.grad(lambda x, k: contract(x, k, "te,ve->tv").sum(), argnums=(0, 1)))(x, kernel)
    found = list(dots(jaxpr.jaxpr))
    assert len(found) >= 3
    assert {str(v.aval.dtype) for eqn in found for v in eqn.invars} == {"bfloat16"}
    assert {str(eqn.params["preferred_element_type"]) for eqn in found} == {"float32"}


@pytest.mark.parametrize("spec", ["rpe,rpe->rp", "rpe,hed->rphd", "rpe,ehd->rpdh"])
def test_other_specs_are_refused(spec):
    with pytest.raises(ValueError, match="expected"):
        contract(jnp.ones((2, 3, 8)), jnp.ones((8, 4, 5)), spec)


def test_a_projection_adds_its_bias():
    x, kernel = operands("rpe,ehd->rphd")
    bias = jnp.arange(20.0).reshape(4, 5)
    got = project(Dense(kernel, bias, ("embed", "heads", "head")), x, "rpe,ehd->rphd", CALL)
    np.testing.assert_allclose(got, np.einsum("rpe,ehd->rphd", x, kernel) + np.asarray(bias), atol=1e-5)


def test_look_up():
    table = Dense(jnp.arange(12.0).reshape(6, 2), None, ("vocab", "embed"))
    np.testing.assert_array_equal(look_up(table, jnp.array([[5, 0]]), CALL), [[[10, 11], [0, 1]]])
    assert np.isnan(look_up(table, jnp.array([6]), CALL)).all(), "an id beyond the table must be loud"
