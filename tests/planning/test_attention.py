# ruff: noqa: E501  (lines of HLO are long)
"""Attention estimates against the published hand calculations for LLaMA-2 on each chip."""

import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.planning import hlo
from jaxlm.planning.attention import Kernel, blocks_run, counted, kernels, other_kernels, pessimistic


def layers(rows, heads, count, *phases, length=4096, block=1024, head=128):
    return [Kernel(phase, rows, heads, length, length, head, block, block, count) for phase in phases]


@pytest.mark.parametrize(
    ("chip", "rows", "heads", "count", "serial", "bundles"),
    [
        ("v5p", 4, 32, 32, 282, 225),  # LLaMA-2 7B, 256 rows on 64 chips
        ("v5e", 1, 32, 32, None, 125),  # the same on 256 chips
        ("v6e", 2, 32, 32, None, 131),  # Llama-3 8B, 512 rows on 256
        ("v5p", 1, 64, 80, None, 464),  # LLaMA-2 70B: the backward on one core of two
    ],
)
def test_milliseconds_of_a_step(chip, rows, heads, count, serial, bundles):
    some = layers(rows, heads, count, "fwd", "fused")
    assert 1e3 * counted(some, CHIPS[chip]) == pytest.approx(bundles, rel=0.005)
    if serial is not None:
        assert 1e3 * pessimistic(some, CHIPS[chip]) == pytest.approx(serial, rel=0.005)
        assert pessimistic(some, CHIPS[chip]) > counted(some, CHIPS[chip])


def test_one_row_keeps_the_fused_backward_on_one_core():
    for estimate in (pessimistic, counted):
        one, two = (estimate(layers(rows, 8, 1, "fused"), CHIPS["v5p"]) for rows in (1, 2))
        assert one == pytest.approx(two)
        one, two = (estimate(layers(rows, 8, 1, "fwd"), CHIPS["v5p"]) for rows in (1, 2))
        assert 2 * one == pytest.approx(two)


def test_recomputed_forward_and_separate_backward():
    # MaxText's recipe: forward twice, dq and dkv apart, blocks of 512
    some = layers(4, 32, 32, "fwd", "fwd", "dq", "dkv", block=512)
    assert 1e3 * pessimistic(some, CHIPS["v5p"]) == pytest.approx(388, rel=0.01)
    assert counted(some, CHIPS["v5p"]) is None


@pytest.mark.parametrize(("block", "head", "chip"), [(512, 128, "v5p"), (1024, 64, "v5p"), (1024, 128, "v4")])
def test_no_count_where_none_was_made(block, head, chip):
    assert counted(layers(4, 8, 1, "fwd", block=block, head=head), CHIPS[chip]) is None


@pytest.mark.parametrize(
    ("length", "q", "kv", "window", "blocks"),
    [
        (4096, 1024, 1024, None, 10),
        (4096, 1024, 512, None, 20),
        (2048, 512, 1024, None, 6),
        (4096, 1024, 1024, 1024, 7),
    ],
)
def test_blocks_that_are_not_masked_away(length, q, kv, window, blocks):
    kernel = Kernel("fwd", 1, 1, length, length, 128, q, kv, 1)
    seen = {
        (i // q, j // kv)
        for i in range(0, length, 256)
        for i in (i, i + 255)
        for j in range(0, length, 256)
        for j in (j, j + 255)
        if j <= i and (window is None or i - j < window)
    }
    assert blocks_run(kernel, window) == len(seen) == blocks


def test_keys_of_another_shard_are_all_seen():
    assert blocks_run(Kernel("fwd", 1, 1, 2048, 4096, 128, 1024, 1024, 1)) == 8


CALLS = r"""ENTRY %main (a: bf16[8]) -> bf16[8] {
  %splash_mha_fwd_segmented_residuals.1 = (f32[2,512,128]{2,1,0:T(8,128)}, bf16[2,4,2048,128]{3,2,1,0}) custom-call(%a, %b), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,2]{2,1,0}, bf16[2,4,2048,128]{3,2,1,0}, bf16[2,2,2048,128]{3,2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\"block_q\": 512, \"block_kv\": 1024, \"block_kv_compute\": 256}"
}}, metadata={op_name="jit(f)/attention"}
  %splash_mha_dkv_no_residuals.2 = (f32[1024,128]{1,0}, bf16[2,4,2048,128]{3,2,1,0}, bf16[2,2048,128]{2,1,0}) custom-call(%a, %b), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,2]{2,1,0}, bf16[4,2048,128]{2,1,0}, bf16[2,2048,128]{2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\"block_q_dkv\": 1024, \"block_kv_dkv\": 512}"
}}, metadata={op_name="jit(f)/attention"}
  %splash_mha_dkv_no_residuals.3 = (f32[1024,128]{1,0}, bf16[2,2048,128]{2,1,0}) custom-call(%a, %b), custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[4,2048,128]{2,1,0}, bf16[2,2048,128]{2,1,0}}, frontend_attributes={kernel_metadata={
}}, metadata={op_name="jit(f)/attention"}
  %gmm.4 = bf16[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"
}
"""


def test_kernels_of_a_compiled_step():
    module = hlo.parse(CALLS)
    assert kernels(module) == [
        Kernel("fwd", 2, 4, 2048, 2048, 128, 512, 1024, 1),
        Kernel("fused", 1, 4, 2048, 2048, 128, 1024, 512, 1),
        Kernel("dkv", 1, 4, 2048, 2048, 128, 1024, 1024, 1),
    ]
    assert other_kernels(module) == {"gmm": 1}
