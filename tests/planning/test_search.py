"""The closed-form ranking: what it enumerates, what it leaves out, and that it knows what is known."""

import dataclasses

import pytest
from planning.test_findings import experiment

from jaxlm.config.block import Capacity
from jaxlm.config.chips import CHIPS
from jaxlm.config.flops import flops_per_token
from jaxlm.config.memory import bytes_per_device, shape_of_mesh
from jaxlm.config.overrides import apply
from jaxlm.families import mixtral
from jaxlm.planning import changes, search
from jaxlm.planning.changes import HEADROOM, policies

V5P = CHIPS["v5p"]
TREE = experiment("full", fsdp=16)
FOUND = search.candidates(TREE, V5P, 64)


def test_all_of_them_divide_fit_and_can_be_asked_for():
    assert len(FOUND) > 100
    for one in FOUND:
        mesh = one.experiment.where.mesh
        assert 64 % (mesh.fsdp * mesh.tensor) == 0
        assert 32 % mesh.tensor == 11_008 % mesh.tensor == 0
        assert 256 % (64 // mesh.tensor * one.experiment.where.micro_batches) == 0
        assert one.bytes == bytes_per_device(one.experiment, 64)["total"] <= HEADROOM * V5P.memory
        assert apply(TREE, list(one.change)) == one.experiment
    assert [one.seconds for one in FOUND] == sorted(one.seconds for one in FOUND)


def test_nothing_that_divides_and_fits_is_left_out():
    by_hand = set()
    for tensor in (1, 2, 4, 8, 16):
        for fsdp in (1, 2, 4, 8, 16, 32, 64):
            for parts in range(1, 257):
                for remat in policies():
                    if fsdp * tensor > 64 or 256 % (64 // tensor * parts):
                        continue
                    tree = experiment(remat, micro_batches=parts, fsdp=fsdp, tensor=tensor)
                    if bytes_per_device(tree, 64)["total"] <= HEADROOM * V5P.memory:
                        by_hand.add((tensor, fsdp, parts, remat))
    listed = [one.experiment.where for one in FOUND]
    assert {(w.mesh.tensor, w.mesh.fsdp, w.micro_batches, w.remat) for w in listed} == by_hand
    assert len(listed) == len(by_hand)


def test_the_published_best_mesh_of_7b_on_64_v5p_comes_first():
    where = FOUND[0].experiment.where
    assert (where.mesh.fsdp, where.mesh.tensor, where.micro_batches) == (16, 1, 1)


def seconds(**changes):
    tree = experiment(**{"remat": "full", "fsdp": 16, **changes})
    return search.seconds(tree, V5P, 64)


def test_what_is_known_to_cost_costs():
    assert seconds(fsdp=64) > seconds()  # whole gradients are summed
    assert seconds(tensor=4) > seconds()  # activations are summed
    assert seconds(micro_batches=4) > seconds()  # weights come again for each
    assert seconds() > seconds(remat="dots") > seconds(remat="none")


def test_seconds_by_hand():
    tree = experiment("none", fsdp=64)
    flops = 44.9e15 / (64 * 459e12 * search.SHARE)
    weights = 6_738_415_616 * 2
    scattered = 2 * weights * 63 / 64 / V5P.wire()
    assert search.seconds(tree, V5P, 64) == pytest.approx(flops + scattered, rel=0.002)


def test_what_policies_repeat():
    def share(remat):
        return changes.recomputed(TREE.model, remat, 4096)

    flops = flops_per_token(TREE.model, 4096)
    named = "query+key+value+attention+middle+gate+up"
    assert (share("none"), share(named), share("full")) == (0, 0, 1)
    assert share("dots") == flops["attention"] / flops["forward"]
    up = 32 * 2 * 4096 * 11_008
    assert share(named.removesuffix("+up")) == pytest.approx(up / flops["forward"])
    assert share(named.removesuffix("+gate+up")) == pytest.approx(2 * up / flops["forward"])
    assert share("query+key+value+middle+gate+up") == share("dots")


def test_one_of_each_mesh_is_compiled():
    chosen = search.best(FOUND, 6)
    meshes = [dataclasses.astuple(one.experiment.where.mesh) for one in chosen]
    assert len(set(meshes)) == len(meshes) == 6
    assert chosen[0] is FOUND[0]


def test_nothing_where_nothing_fits():
    assert search.candidates(TREE, CHIPS["v5e"], 4) == []


def mixture(**dispatch):
    model = mixtral.mixtral("8x7b")
    mlp = dataclasses.replace(model.block.mlp, **dispatch)
    model = dataclasses.replace(model, block=dataclasses.replace(model.block, mlp=mlp))
    return dataclasses.replace(experiment("full", fsdp=16), model=model)


def meshes(tree, axis, devices=64):
    return {getattr(one.experiment.where.mesh, axis) for one in search.candidates(tree, V5P, devices)}


def test_experts_may_share_devices_and_long_rows_may_be_shared():
    assert meshes(mixture(), "expert") == {1, 2, 4, 8}
    assert meshes(TREE, "expert") == meshes(TREE, "context") == {1}
    long = apply(TREE, ["--train.length", "32768", "--train.batch", "64"])
    assert meshes(long, "context") == {1, 2, 4, 8}
    fewer = search.candidates(apply(long, ["--train.batch", "8"]), V5P, 64)  # rows than devices
    assert min(one.experiment.where.mesh.context * one.experiment.where.mesh.tensor for one in fewer) == 8


def test_a_capacity_is_of_whole_rows():
    tree = apply(mixture(dispatch=Capacity()), ["--train.length", "32768", "--train.batch", "64"])
    assert meshes(tree, "context") == {1}


def test_slices_and_stages_stay():
    tree = apply(TREE, ["--where.mesh.pipeline", "2", "--where.mesh.replica", "2", "--where.mesh.fsdp", "4"])
    found = search.candidates(tree, V5P, 64)
    assert {(one.experiment.where.mesh.pipeline, one.experiment.where.mesh.replica) for one in found} == {(2, 2)}


def test_what_shared_rows_and_experts_cost_by_hand():
    tree = apply(TREE, ["--where.mesh.context", "2", "--where.mesh.fsdp", "8"])
    behind, joined = search._activations(tree, shape_of_mesh(tree, 64), 0.0)
    tokens = 256 * 4096 / 64  # of a device
    assert (behind, joined) == (4 * 1 * tokens * 2 * 32 * 2 * 4096, 0)
    tree = apply(mixture(), ["--where.mesh.expert", "4", "--where.mesh.fsdp", "8"])
    _, joined = search._activations(tree, shape_of_mesh(tree, 64), 0.0)
    assert joined == 2 * 2 * 32 * tokens * 4096 * 2 * 3
