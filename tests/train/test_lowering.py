"""The training step lowers for accelerators that are not here, forward and backward."""

import dataclasses

import jax
import pytest

from jaxlm.config import Attention, Block, Decoder, Experiment, Gated, Mesh, Moe, Train, Where
from jaxlm.parallel.layout import Layout
from jaxlm.planning import cudnn
from jaxlm.planning.aot import abstract_batch
from jaxlm.train.setup import make_setup
from jaxlm.train.step import make_step
from tests.train.tiny import experiment

CUSTOM = ("tpu_custom_call", "Sharding", "LayoutConstraint", "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
HEADS = Attention(heads=2, kv_heads=1, head=128)
MESHES = {"fsdp 8": Mesh(fsdp=8), "fsdp 2, tensor 2": Mesh(fsdp=2, tensor=2), "context 4": Mesh(context=4)}


def exported(tree: Experiment, platform: str, monkeypatch) -> str:
    """An experiment's step for a platform; the mesh is of this machine's devices, taken for the platform's."""
    monkeypatch.setattr(Layout, "platform", {"cuda": "gpu"}.get(platform, platform))
    setup = make_setup(tree)
    step = make_step(setup.objective, setup.optimizer, setup.call, seed=0, clip=1.0)
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in CUSTOM]
    export = jax.export.export(jax.jit(step), platforms=(platform,), disabled_checks=checks)
    # jax asks for cuDNN's version while it traces; there is none here.
    with cudnn.assumed():
        found = export(setup.abstract, abstract_batch(tree, setup.call.layout))
    assert found.platforms == (platform,)
    return found.mlir_module()


def lowered(platform: str, mesh: Mesh, mlp, monkeypatch) -> str:
    """The step's program for a small decoder with such an MLP."""
    tree = dataclasses.replace(
        experiment(),
        model=Decoder(vocab=264, embed=64, layers=2, block=Block(dataclasses.replace(HEADS, kv_heads=2), mlp)),
        train=Train(batch=8, length=256),
        where=Where(mesh=mesh, remat="query+key+value+attention+middle+gate+up"),
        precision="bfloat16",
    )
    return exported(tree, platform, monkeypatch)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_dense_step(platform, mesh, monkeypatch):
    text = lowered(platform, MESHES[mesh], Gated(128), monkeypatch)
    assert "reduce_scatter" in text or mesh != "fsdp 8"
    whole = "context" not in mesh
    for name in ("splash", "tpu_custom_call"):
        assert (name in text) == (whole and platform == "tpu")
    for name in ("__cudnn$fmhaSoftmax(", "__cudnn$fmhaSoftmaxBackward("):
        assert (name in text) == (whole and platform == "cuda")


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_mixture(platform, monkeypatch):
    text = lowered(platform, Mesh(fsdp=4, expert=2), Moe(experts=4, top_k=2, width=128), monkeypatch)
    assert "all_gather" in text
