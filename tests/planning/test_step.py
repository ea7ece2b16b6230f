"""What the compiled training step sends, on devices of this machine."""

import dataclasses

import jax
import pytest
from planning.small import experiment

from jaxlm.config import Mesh, Tied
from jaxlm.config.memory import gathered_bytes
from jaxlm.planning import collectives, hlo
from jaxlm.planning.aot import compile_step


def sent(remat: str, mesh: dict[str, int]):
    """(Experiment, collectives of its step on eight devices) in float32: CPUs widen what is narrower."""
    tree = experiment()
    train = dataclasses.replace(tree.train, batch=8)
    where = dataclasses.replace(tree.where, mesh=Mesh(**mesh), remat=remat)
    tree = dataclasses.replace(tree, precision="float32", train=train, where=where)
    compiled = compile_step(tree, jax.devices())
    return tree, collectives.collectives(hlo.parse(compiled.text), compiled.mesh)


@pytest.mark.parametrize(
    ("remat", "mesh"),
    [
        ("full", {"fsdp": 8}),
        ("none", {"fsdp": 8}),
        ("full", {"fsdp": 2, "context": 2}),
        ("full", {"fsdp": 4, "tensor": 2}),
    ],
)
def test_parameters_are_gathered_as_counted_and_gradients_scattered(remat, mesh):
    """Whatever is kept for the backward pass, parameters are gathered for it again."""
    tree, some = sent(remat, mesh)
    storing = {"fsdp", "context"}

    def bytes_of(kind, in_loop=None):
        chosen = [one for one in some if one.kind == kind and set(one.axes) <= storing and set(one.axes)]
        return sum(one.step_wire for one in chosen if in_loop is None or one.in_loop == in_loop)

    counted = gathered_bytes(tree, 8)
    assert bytes_of("all-gather") == pytest.approx(counted, rel=0.05)
    ends = gathered_bytes(dataclasses.replace(tree, model=dataclasses.replace(tree.model, layers=0)), 8)
    assert bytes_of("all-gather", in_loop=False) == pytest.approx(ends, rel=0.05)
    assert bytes_of("reduce-scatter", in_loop=True) == pytest.approx((counted - ends) / 2, rel=0.05)
    assert bytes_of("all-reduce", in_loop=True) == 0


def test_tokens_are_joined_and_sums_scattered_along_tensor():
    """Twice a layer, forward and backward; of its recomputation the last sum is left out."""
    tree, some = sent("full", {"fsdp": 4, "tensor": 2})
    rows, numbers = tree.train.batch // 4, tree.train.length * tree.model.embed
    half = rows * numbers * 4 / 2
    layers = tree.model.layers

    def bytes_of(kind):
        return sum(one.step_wire for one in some if one.kind == kind and one.axes == ("tensor",) and one.in_loop)

    assert bytes_of("all-gather") == pytest.approx(6 * layers * half, rel=0.02)
    assert bytes_of("reduce-scatter") == pytest.approx(5 * layers * half, rel=0.02)
    assert bytes_of("all-reduce") == 0


def test_a_head_that_is_tied_is_gathered_for_both_uses():
    tree = experiment()
    tied = dataclasses.replace(tree, model=dataclasses.replace(tree.model, head=Tied()))
    assert gathered_bytes(tied, 4) == gathered_bytes(tree, 4)
