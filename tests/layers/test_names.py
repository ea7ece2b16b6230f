import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.config.errors import Failure
from jaxlm.layers import names


@flax.struct.dataclass
class Dense:
    kernel: jax.Array
    bias: jax.Array | None = None
    axes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())


@flax.struct.dataclass
class Toy:
    embedding: Dense
    blocks: tuple[dict[str, Dense], ...]


def toy(kernel=jnp.ones):
    return Toy(
        embedding=Dense(kernel((5, 4)), axes=("vocab", "embed")),
        blocks=(
            {"up": Dense(kernel((4, 8)), jnp.zeros(8)), "down": Dense(kernel((8, 4)))},
            {"up": Dense(kernel((4, 8))), "down": Dense(kernel((8, 4)))},
        ),
    )


def test_names_are_dotted_paths_and_none_has_no_name():
    assert list(names.flatten(toy())) == [
        "embedding.kernel",
        "blocks.0.down.kernel",
        "blocks.0.up.kernel",
        "blocks.0.up.bias",
        "blocks.1.down.kernel",
        "blocks.1.up.kernel",
    ]


def test_nested_has_the_same_names_and_leaves():
    nested = names.to_nested(toy())
    assert type(nested["blocks"]["0"]) is dict
    assert set(flatten_dict(nested, sep=".")) == set(names.flatten(toy()))


@pytest.mark.parametrize("form", [names.to_nested, names.flatten])
def test_round_trip(form):
    tree = jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), toy())
    again = names.from_nested(jax.eval_shape(toy), form(tree))
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_a_misfit_lists_every_problem_once():
    given = names.flatten(toy())
    del given["embedding.kernel"]
    given["blocks.2.up.kernel"] = jnp.zeros(3)
    given["blocks.0.up.bias"] = jnp.zeros(9)
    with pytest.raises(Failure) as failure:
        names.from_nested(toy(), given)
    lines = str(failure.value).splitlines()[1:]
    assert lines == [
        "  missing embedding.kernel (5, 4)",
        "  unexpected blocks.2.up.kernel (3,)",
        "  blocks.0.up.bias is (9,), not (8,)",
    ]


def test_only_the_first_ten_problems_are_listed():
    template = {f"w{i}": jnp.zeros(1) for i in range(25)}
    with pytest.raises(Failure) as failure:
        names.from_nested(template, {})
    lines = str(failure.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 15 more"


@pytest.mark.parametrize("tree", [{"a": {"b": 1}, "a.b": 2}, {0: 1, "0": 2}])
def test_two_leaves_of_one_name_are_refused(tree):
    with pytest.raises((ValueError, TypeError)):
        names.flatten(tree)


@pytest.mark.parametrize("tree", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_a_leaf_cannot_be_a_folder_too(tree):
    with pytest.raises(ValueError, match="name 'a"):
        names.to_nested(tree)


def kernels(name, leaf):
    return name.endswith("kernel") and leaf.ndim == 2


def test_partition_and_combine_are_inverse():
    tree = toy()
    trainable, frozen = names.partition(tree, kernels)
    assert type(trainable) is type(frozen) is Toy
    assert trainable.embedding.axes == ("vocab", "embed")
    assert list(names.flatten(frozen)) == ["blocks.0.up.bias"]
    assert set(names.flatten(trainable)) | set(names.flatten(frozen)) == set(names.flatten(tree))
    for halves in ((trainable, frozen), (frozen, trainable)):
        assert jax.tree.structure(names.combine(*halves)) == jax.tree.structure(tree)


def test_gradients_reach_only_the_trainable_half_under_jit():
    trainable, frozen = jax.jit(lambda tree: names.partition(tree, kernels))(toy())

    @jax.jit
    def gradient(trainable, frozen):
        def loss(half):
            whole = names.combine(half, frozen)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(whole))

        return jax.grad(loss)(trainable)

    found = gradient(trainable, frozen)
    assert jax.tree.structure(found) == jax.tree.structure(trainable)
    np.testing.assert_array_equal(found.embedding.kernel, 2 * trainable.embedding.kernel)


def test_partition_of_shapes():
    trainable, frozen = names.partition(jax.eval_shape(toy), kernels)
    shapes = jax.eval_shape(names.combine, trainable, frozen)
    assert names.flatten(shapes)["blocks.0.up.bias"].shape == (8,)


def test_combine_refuses_a_leaf_in_both_halves():
    trainable, _ = names.partition(toy(), kernels)
    with pytest.raises(ValueError, match=r"embedding\.kernel"):
        names.combine(trainable, toy())
