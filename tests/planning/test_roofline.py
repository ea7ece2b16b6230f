"""The GPU model: each kernel's longer side, counted by hand."""

import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.planning import hlo, roofline

H100 = CHIPS["h100"]
HEAD = """ENTRY %main (a: bf16[1]) -> bf16[1] {
  %a = bf16[4096,8192]{1,0} parameter(0)
  %b = bf16[8192,2048]{1,0} parameter(1)
"""
FLOPS = 2 * 4096 * 8192 * 2048


def seconds(*lines: str, before: str = "") -> float:
    return roofline.seconds(hlo.parse(before + HEAD + "".join(f"  {line}\n" for line in lines) + "}\n"), H100)


PLAIN = "%c = bf16[4096,2048]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
FUSED = """%gemm (x: bf16[4096,8192], y: bf16[8192,2048]) -> bf16[4096,2048] {
  %x = bf16[4096,8192]{1,0} parameter(0)
  %y = bf16[8192,2048]{1,0} parameter(1)
  ROOT %d = bf16[4096,2048]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

"""
CUBLAS = (
    '%c = (bf16[4096,2048]{1,0}, s8[16]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", '
    'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
)


@pytest.mark.parametrize(
    ("line", "before"),
    [(PLAIN, ""), (CUBLAS, ""), ("%c = bf16[4096,2048] fusion(%a, %b), kind=kCustom, calls=%gemm", FUSED)],
)
def test_products_in_each_form(line, before):
    assert seconds(line, before=before) == pytest.approx(FLOPS / (roofline.PRODUCTS * H100.peak))


def test_float32_products_take_twice_as_long():
    single = HEAD.replace("bf16", "f32") + f"  {PLAIN.replace('bf16', 'f32')}\n}}\n"
    assert roofline.seconds(hlo.parse(single), H100) == pytest.approx(2 * FLOPS / (roofline.PRODUCTS * H100.peak))


def test_memory_where_there_is_nothing_to_multiply():
    moved = 2 * 4096 * 8192 * 2
    took = seconds("%c = bf16[4096,8192]{1,0} copy(%a)", "%t = (bf16[4096,8192]) tuple(%c)")
    assert took == pytest.approx(moved / (roofline.MEMORY * H100.bandwidth))


SLICED = """%slice (stack: bf16[32,64,64], i: s32[]) -> bf16[1,64,64] {
  %stack = bf16[32,64,64]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = bf16[1,64,64]{2,1,0} dynamic-slice(%stack, %i), dynamic_slice_sizes={1,64,64}
}

%update (stack: bf16[32,64,64], new: bf16[1,64,64], i: s32[]) -> bf16[32,64,64] {
  %stack = bf16[32,64,64]{2,1,0} parameter(0)
  %new = bf16[1,64,64]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = bf16[32,64,64]{2,1,0} dynamic-update-slice(%stack, %new, %i)
}

"""


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        ("%s = bf16[1,64,64] fusion(%stack, %i), kind=kLoop, calls=%slice", 2 * 8192 + 4),
        ("%s = bf16[32,64,64] fusion(%stack, %new, %i), kind=kLoop, calls=%update", 2 * 8192 + 4),
    ],
)
def test_of_a_stack_only_the_slice_moves(line, moved):
    inputs = (
        "%stack = bf16[32,64,64] parameter(2)",
        "%new = bf16[1,64,64] parameter(3)",
        "%i = s32[] parameter(4)",
    )
    assert seconds(*inputs, line, before=SLICED) == pytest.approx(moved / (roofline.MEMORY * H100.bandwidth))


@pytest.mark.parametrize(("head", "known"), [(64, 64), (80, 128), (128, 128), (40, 64)])
def test_attention_by_cudnn_is_causal(head, known):
    shape = f"bf16[4,2048,32,{head}]{{3,2,1,0}}"
    line = (
        f"%o = ({shape}, u8[0]) custom-call(%a, %a, %a), "
        'custom_call_target="__cudnn$fmhaSoftmax", '
        f"operand_layout_constraints={{{shape}, {shape}}}, backend_config={{}}"
    )
    forward = 2 * 2 * 4 * 32 * 2048 * 2048 * head / 2
    share = {name: shares[known] for name, shares in roofline.ATTENTION.items()}
    assert seconds(line) == pytest.approx(forward / (share["forward"] * H100.peak))
    backward = seconds(line.replace("fmhaSoftmax", "fmhaSoftmaxBackward"))
    assert backward == pytest.approx(2.5 * forward / (share["backward"] * H100.peak))
