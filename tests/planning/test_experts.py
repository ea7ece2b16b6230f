# ruff: noqa: E501  (lines of HLO are long)
"""Kernels of experts: read from a compiled step, and timed against counts by hand."""

import dataclasses

import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.planning import hlo
from jaxlm.planning.experts import Kernel, kernels, pessimistic

CALLS = """ENTRY %main (a: bf16[8]) -> bf16[8] {
  %gmm.31 = bf16[32768,14336]{1,0:T(8,128)(2,1)} custom-call(%a), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[], s32[9]{0}, s32[71]{0}, s32[71]{0}, s32[1]{0}, bf16[32768,4096]{1,0}, bf16[8,4096,14336]{2,1,0}}, frontend_attributes={kernel_metadata={}}
  %gmm.28 = bf16[32768,4096]{1,0:T(8,128)(2,1)} custom-call(%a), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[], s32[1]{0}, bf16[32768,14336]{1,0}, bf16[8,4096,14336]{2,1,0}}, frontend_attributes={kernel_metadata={}}
  %tgmm.2 = bf16[8,4096,14336]{2,1,0} custom-call(%a), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[], s32[1]{0}, bf16[32768,4096]{1,0}, bf16[32768,14336]{1,0}}, frontend_attributes={kernel_metadata={}}
  %another.2 = bf16[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"
}
"""
MIXTRAL = Kernel(8, 32_768, 4096, 14_336, False, 1)


def test_kernels_of_a_compiled_step():
    down = Kernel(8, 32_768, 14_336, 4096, False, 1)
    gradient = dataclasses.replace(MIXTRAL, over_slots=True)
    assert list(kernels(hlo.parse(CALLS))) == [MIXTRAL, down, gradient]


def test_slower_than_the_matrix_unit_but_not_by_much():
    v5p = CHIPS["v5p"]
    ideal = 2 * 32_768 * 4096 * 14_336 / v5p.peak
    for over_slots, share in ((False, 0.79), (True, 0.65)):
        found = pessimistic([dataclasses.replace(MIXTRAL, over_slots=over_slots)], v5p)
        assert ideal / found == pytest.approx(share, abs=0.02)
    assert pessimistic([dataclasses.replace(MIXTRAL, times=3)], v5p) == pytest.approx(
        3 * pessimistic([MIXTRAL], v5p)
    )


def test_a_tile_by_hand():
    """One expert, one tile of 512 slots x 1024 x 1024 features; and read from memory that is slow."""
    v5p, one = CHIPS["v5p"], Kernel(1, 512, 1024, 1024, False, 1)
    products = 2 * 512 * 1024 * 1024 / (0.9 * v5p.peak)
    vector = 4 * 512 * 1024 / (8192 * v5p.clock)
    assert pessimistic([one], v5p) == pytest.approx(products + vector)
    slow = dataclasses.replace(v5p, bandwidth=1e9)
    assert pessimistic([one], slow) == pytest.approx(2 * 1024 * (512 + 1024) / 1e9)


def test_each_further_expert_begins_in_a_tile_of_another():
    v5p = CHIPS["v5p"]
    some = Kernel(1, 4096, 1024, 1024, False, 1)
    more = dataclasses.replace(some, experts=5)
    assert pessimistic([more], v5p) == pytest.approx(12 / 8 * pessimistic([some], v5p))
