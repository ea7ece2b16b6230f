"""What a TPU's compiler makes of a small rounded model: bytes times bytes, counted as they are."""

import pytest

from jaxlm import config
from jaxlm.planning import hlo, topology
from tests.experiments.scripts import load

script = load("quantized_compiled")
BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=128), config.Gated(512))
MODEL = config.Decoder(vocab=1024, embed=256, layers=2, block=BLOCK)
WEIGHTS = 256 * 256 * 2 + 256 * 128 * 2 + 3 * 256 * 512
"""Of a layer: queries and outputs, keys and values, the MLP."""


def flops(device, form):
    size, programs = script.compiled(form, MODEL, device)
    return size, {name: script.products(module) for name, (_, module) in programs.items()}


@pytest.mark.usefixtures("compilers")
def test_rounded_products_are_of_bytes():
    device = topology.devices(topology.parse("v5e:2x2"))[0]
    whole, plain = flops(device, "bfloat16")
    size, rounded = flops(device, "w8a8")
    assert size < 0.51 * whole
    blocks = 2 * script.LENGTH * 2 * WEIGHTS
    head = 2 * 1024 * 256
    assert rounded["prompt"]["s8 x s8 -> s32"] == pytest.approx(blocks + head, rel=0.02)
    assert "s8 x s8 -> s32" not in plain["prompt"]
    assert sum(plain["prompt"].values()) >= blocks


def test_products_within_loops_and_fusions_are_multiplied_out():
    text = """HloModule step

%fused (a: s8[8,16], b: s8[16,4]) -> s32[8,4] {
  %a = s8[8,16]{1,0} parameter(0)
  %b = s8[16,4]{1,0} parameter(1)
  ROOT %c = s32[8,4]{1,0} convolution(s8[8,16]{1,0} %a, s8[16,4]{1,0} %b), dim_labels=bf_io->bf
}

ENTRY %main (x: s8[8,16], w: s8[16,4]) -> s32[8,4] {
  %x = s8[8,16]{1,0} parameter(0)
  %w = s8[16,4]{1,0} parameter(1)
  ROOT %y = s32[8,4]{1,0} fusion(s8[8,16]{1,0} %x, s8[16,4]{1,0} %w), kind=kOutput, calls=%fused
}
"""
    assert script.products(hlo.parse(text)) == {"s8 x s8 -> s32": 2 * 8 * 16 * 4}
