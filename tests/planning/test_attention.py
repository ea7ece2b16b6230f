# ruff: noqa: E501  (lines of HLO are long)
"""Attention estimates against the published hand calculations for LLaMA-2 on each chip."""

import numpy as np
import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.planning import hlo
from jaxlm.planning.attention import Kernel, blocks_run, kernels, other_kernels, pessimistic


def layers(rows, heads, count, *phases, length=4096, block=1024, head=128):
    return [Kernel(phase, rows, heads, length, length, head, block, block, count) for phase in phases]


def test_milliseconds_of_a_step():
    some = layers(4, 32, 32, "fwd", "fused")  # LLaMA-2 7B, 256 rows on 64 chips
    assert 1e3 * pessimistic(some, CHIPS["v5p"]) == pytest.approx(282, rel=0.005)
    assert 4 * pessimistic(layers(1, 32, 32, "fwd", "fused"), CHIPS["v5p"]) == pytest.approx(
        pessimistic(some, CHIPS["v5p"])
    )


def test_recomputed_forward_and_separate_backward():
    # MaxText's recipe: forward twice, dq and dkv apart, blocks of 512
    some = layers(4, 32, 32, "fwd", "fwd", "dq", "dkv", block=512)
    assert 1e3 * pessimistic(some, CHIPS["v5p"]) == pytest.approx(388, rel=0.01)


@pytest.mark.parametrize(
    ("length", "q", "kv", "window", "blocks", "two_sided"),
    [
        (4096, 1024, 1024, None, 10, 16),
        (4096, 1024, 512, None, 20, 32),
        (2048, 512, 1024, None, 6, 8),
        (4096, 1024, 1024, 1024, 7, 10),
        (4096, 512, 1024, 100, 11, 14),
    ],
)
def test_blocks_that_are_not_masked_away(length, q, kv, window, blocks, two_sided):
    kernel = Kernel("fwd", 1, 1, length, length, 128, q, kv, 1)
    i, j = np.arange(length)[:, None], np.arange(length)[None]
    near = np.full((length, length), True) if window is None else np.abs(i - j) < window
    for causal, wanted in ((True, blocks), (False, two_sided)):
        seen = near & (j <= i) if causal else near
        run = seen.reshape(length // q, q, length // kv, kv).any(axis=(1, 3)).sum()
        assert blocks_run(kernel, window, causal=causal) == run == wanted


def test_from_both_sides_costs_what_no_block_masked_costs():
    some = layers(4, 32, 32, "fwd", "dq", "dkv")
    whole = pessimistic(some, CHIPS["v5p"], causal=False)
    assert whole == pytest.approx(16 / 10 * pessimistic(some, CHIPS["v5p"]))


def test_heads_take_the_time_of_whole_vectors():
    time = {
        head: pessimistic(layers(4, 32, 32, "fwd", "dq", head=head), CHIPS["v5p"]) for head in (64, 128, 192, 256)
    }
    assert time[64] == time[128] < time[192] == time[256]


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
  %ours.4 = bf16[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"
}
"""


def test_kernels_of_a_compiled_step():
    module = hlo.parse(CALLS)
    assert kernels(module) == [
        Kernel("fwd", 2, 4, 2048, 2048, 128, 512, 1024, 1),
        Kernel("fused", 1, 4, 2048, 2048, 128, 1024, 512, 1),
        Kernel("dkv", 1, 4, 2048, 2048, 128, 1024, 1024, 1),
    ]
    assert other_kernels(module) == {"ours": 1}
