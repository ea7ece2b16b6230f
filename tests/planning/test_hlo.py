# ruff: noqa: E501  (lines of HLO are long)
"""HLO text as TPU and GPU compilers print it, cut down to what each trap needs; numbers counted by hand."""

import pytest

from jaxlm.planning import hlo
from jaxlm.planning.attention import other_kernels

LOOP = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[8]) -> bf16[8] {
  %p = bf16[8]{0:T(128)} parameter(0)
  ROOT %inner = bf16[8]{0} add(%p, %p), backend_config={"window_config":{"estimated_cycles":"999"}}
}

%body (state: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %state = (s32[]{:T(128)}, bf16[8]{0:T(8,128)(2,1)S(1)}) parameter(0)
  %x = bf16[8]{0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=1
  %work = bf16[8]{0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %next = (s32[], bf16[8]) tuple(%i, %work)
}

%condition (state: (s32[], bf16[8])) -> pred[] {
  %other = s32[]{:T(128)} constant(77)
  %limit = s32[]{:T(128)} constant(12)
  %state = (s32[]{:T(128)}, bf16[8]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (a: bf16[8]) -> bf16[8] {
  %a = bf16[8]{0} parameter(0)
  %start = s32[]{:T(128)} constant(START)
  %counter = s32[]{:T(128)} copy(%start)
  %first = bf16[8]{0} fusion(%a), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"7"}}
  %packed = (s32[]{:T(128)}, /*index=1*/bf16[8]{0}) tuple(%counter, %first)
  %loop = (s32[]{:T(128)}, bf16[8]{0}) while(%packed), condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  ROOT %out = bf16[8]{0} get-tuple-element(%loop), index=1
}
"""


def test_loops_multiply_and_fusions_do_not_count_their_insides():
    module = hlo.parse(LOOP.replace("START", "0"))
    assert module.executions == {"main": 1, "body": 12}
    assert module.cycles == 7 + 12 * 100


def test_a_loop_that_does_not_start_at_zero():
    assert hlo.parse(LOOP.replace("START", "2")).executions["body"] == 10


def test_what_the_compiler_says_beats_the_condition():
    told = LOOP.replace("START", "0").replace(
        'metadata={op_name="jit(f)/while"}', 'backend_config={"known_trip_count":{"n":"5"},"other":9}'
    )
    assert hlo.parse(told).executions["body"] == 5


def test_a_limit_within_a_fusion_of_the_condition():
    fused = LOOP.replace("START", "0").replace(
        "compare(%i, %limit), direction=LT", "fusion(%i, %limit), kind=kLoop, calls=%wrapped_compare"
    )
    assert hlo.parse(fused).executions["body"] == 12


def test_loops_within_loops_multiply():
    inner = """%inner_body (s: (s32[])) -> (s32[]) {
  %w = bf16[8]{0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"1000"}}
}

%inner_condition (s: (s32[])) -> pred[] {
  %n = s32[] constant(3)
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

%body ("""
    nested = LOOP.replace("START", "0").replace("%body (", inner, 1)
    nested = nested.replace(
        "  ROOT %next",
        "  %deep = (s32[]) while(%state), condition=%inner_condition, body=%inner_body\n  ROOT %next",
    )
    module = hlo.parse(nested)
    assert module.executions["inner_body"] == 36
    assert module.cycles == 7 + 12 * (100 + 3 * 1000)


PALLAS = """ENTRY %main (a: bf16[8]) -> bf16[8] {
  %kernel.1 = (f32[2,4]{1,0}, bf16[8]{0}) custom-call(%a), custom_call_target="tpu_custom_call", frontend_attributes={m={
"block_q": 1024
}}, metadata={op_name="jit(f)/kernel"}, backend_config={"x":"AB
}}, "y":1}
  %after = bf16[8]{0} fusion(%a), kind=kLoop, calls=%none, backend_config={"window_config":{"estimated_cycles":"5"}}
}
"""


def test_metadata_over_several_lines_ends_neither_computation_nor_instruction():
    module = hlo.parse(PALLAS)
    kernel, after = module.computations["main"]
    assert '"block_q": 1024' in kernel.attributes
    assert kernel.scope == "jit(f)/kernel"
    assert after.name == "after"
    assert module.cycles == 5


def test_what_runs_on_another_core_is_counted():
    text = """%scatter (p: f32[8]) -> f32[8] {
  ROOT %s = f32[8] fusion(%p), kind=kCustom, calls=%x, backend_config={"estimated_cycles":"20"}
}, execution_thread="sparsecore"

%called (p: f32[8], t: token[]) -> f32[8] {
  %go = ((f32[8]), f32[8], u32[]{:S(8)}) call-start(%p), async_execution_thread="sparsecore", to_apply=%scatter
  ROOT %end = f32[8] call-done(%go)
}, execution_thread="sparsecore"

ENTRY %main (a: f32[8]) -> f32[8] {
  %go = ((f32[8], token[]), f32[8]) call-start(%a, %t), async_execution_thread="sparsecore", to_apply=%called
  ROOT %end = f32[8] call-done(%go)
}
"""
    module = hlo.parse(text)
    assert module.executions == {"main": 1, "called": 1, "scatter": 1}
    assert module.cycles == 20
    assert other_kernels(module) == {}
    # the largest number stands for none
    unknown = hlo.parse(text.replace('"20"', f'"{2**63 - 1}"'))
    assert unknown.cycles == 0
    assert other_kernels(unknown) == {"s": 1}


def test_of_a_conditional_the_dearest_branch_counts():
    text = """%cheap (p: s32[]) -> s32[] {
  %c = s32[] fusion(%p), calls=%x, backend_config={"estimated_cycles":"3"}
}

%dear (p: s32[]) -> s32[] {
  %d = s32[] fusion(%p), calls=%x, backend_config={"estimated_cycles":"40"}
}

ENTRY %main (a: s32[]) -> s32[] {
  ROOT %r = s32[] conditional(%a, %a, %a), branch_computations={%cheap, %dear}
}
"""
    module = hlo.parse(text)
    assert module.cycles == 40
    assert "cheap" not in module.executions
    old_form = text.replace(
        "branch_computations={%cheap, %dear}", "true_computation=%dear, false_computation=%cheap"
    )
    assert hlo.parse(old_form).cycles == 40


@pytest.mark.parametrize(
    ("type_text", "size"),
    [
        ("bf16[4,8]{1,0:T(8,128)(2,1)S(1)}", 64),
        ("f32[]{:T(128)}", 4),
        ("pred[3]", 3),
        ("s4[6]", 3),
        ("f8e4m3fn[10]", 10),
        ("(f32[2]{0}, (bf16[3], /*index=2*/u32[]))", 8 + 6 + 4),
        ("token[]", 0),
    ],
)
def test_sizes(type_text, size):
    assert hlo.size(type_text) == size


def test_members_of_tuples():
    pair = "((f32[8,2]{1,0}, f32[4]{0}), f32[1,2]{1,0:T(8,128)(2,1)}, /*index=2*/u32[]{:S(2)})"
    assert hlo.elements(pair) == ["(f32[8,2]{1,0}, f32[4]{0})", "f32[1,2]{1,0:T(8,128)(2,1)}", "u32[]{:S(2)}"]
    assert hlo.elements("f32[2]{0}") == ["f32[2]{0}"]
    assert hlo.flat(pair) == ["f32[8,2]{1,0}", "f32[4]{0}", "f32[1,2]{1,0:T(8,128)(2,1)}", "u32[]{:S(2)}"]


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule nothing\n")
