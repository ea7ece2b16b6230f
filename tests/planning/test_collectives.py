"""Bytes on the wire and what hides them, on texts cut from compiled steps; counted by hand."""

import pytest

from jaxlm.planning import hlo
from jaxlm.planning.collectives import collectives

MESH = {"data": 2, "fsdp": 4}
FSDP = "replica_groups=mesh['a'=2,'b'=4] {'b'}, use_global_device_ids=true"


def step(*lines: str, others: str = "") -> list:
    body = "\n".join(f"  {line}" for line in lines)
    text = f"{others}\nENTRY %main (a: f32[1]) -> f32[1] {{\n{body}\n}}\n"
    return collectives(hlo.parse(text), MESH)


@pytest.mark.parametrize(
    ("line", "kind", "wire"),
    [
        ("bf16[16,8]{1,0} all-gather(%x), channel_id=1, " + FSDP, "all-gather", 256 * 3 / 4),
        ("f32[4]{0} reduce-scatter(%x), channel_id=1, " + FSDP, "reduce-scatter", 64 * 3 / 4),
        ("f32[16]{0} all-reduce(%x), channel_id=1, " + FSDP, "all-reduce", 2 * 64 * 3 / 4),
        ("f32[16]{0} all-to-all(%x), channel_id=1, " + FSDP, "all-to-all", 64 * 3 / 4),
        # combined into one: all members of the tuple count
        ("(f32[16]{0}, bf16[8]{0}) all-reduce(%x, %y), channel_id=1, " + FSDP, "all-reduce", 2 * 80 * 3 / 4),
        ("(f32[4]{0}, f32[2]{0}) reduce-scatter(%x, %y), channel_id=1, " + FSDP, "reduce-scatter", 96 * 3 / 4),
        ("f32[16]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}", "collective-permute", 64),
    ],
)
def test_synchronous(line, kind, wire):
    (found,) = step(f"%one = {line}")
    assert (found.kind, found.wire, found.hidden) == (kind, wire, False)


def test_axes_and_groups_of_one_move_nothing():
    along_data = "replica_groups={{0,4},{1,5},{2,6},{3,7}}"
    (found,) = step(
        f"%one = f32[16] all-reduce(%x), {along_data}",
        "%alone = f32[16] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}",
    )
    assert (found.axes, found.group, found.wire) == (("data",), (0, 4), 64)


FUSED = """%all-reduce-scatter.3.clone (input: f32[16]) -> f32[4] {
  %input = f32[16]{0} parameter(0)
  %all-reduce.5 = f32[16]{0:T(128)} all-reduce(%input), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[4]{0} dynamic-slice(%all-reduce.5, %i), dynamic_slice_sizes={4}
}
"""


def test_a_reduce_scatter_in_disguise():
    (found,) = step("%one = f32[4]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3.clone", others=FUSED)
    assert (found.kind, found.wire, found.payload) == ("reduce-scatter", 48, 64)
    # an all-reduce that merely sits in a fusion is one
    (plain,) = step(
        "%one = f32[4]{0} fusion(%x), calls=%fusion.1",
        others=FUSED.replace("all-reduce-scatter.3.clone", "fusion.1"),
    )
    assert (plain.kind, plain.wire) == ("all-reduce", 96)


def asynchronous(name: str, root: str) -> str:
    return f"""%{name} (p: bf16[4]) -> bf16[16] {{
  %gather = bf16[16]{{0}} all-gather(%p), channel_id=5, {FSDP}, metadata={{op_name="jit(f)/layer/project"}}
  ROOT %r = bf16[16]{{0}} {root}
}}
"""


START = asynchronous("fused.start", 'custom-call(%gather), custom_call_target="AsyncCollectiveStart"')
MIDDLE = asynchronous("async_collective_fusion.7", "convolution(%p, %p), dim_labels=bf_io->bf")
DONE = asynchronous("fused.done", 'custom-call(%gather), custom_call_target="AsyncCollectiveDone"')
CYCLES = 'backend_config={"window_config":{"estimated_cycles":"%d"}}'


def test_tpu_asynchronous_fusions_are_one_collective():
    (found,) = step(
        "%start = (bf16[4], bf16[16]) fusion(%x), kind=kCustom, calls=%fused.start, " + CYCLES % 1,
        "%work = bf16[16] fusion(%x), kind=kOutput, calls=%other, " + CYCLES % 100,
        "%middle = bf16[16] fusion(%x), kind=kOutput, calls=%async_collective_fusion.7, " + CYCLES % 30,
        "%done = bf16[16] fusion(%x), kind=kCustom, calls=%fused.done",
        "%after = bf16[16] fusion(%x), kind=kOutput, calls=%other, " + CYCLES % 500,
        others=START + MIDDLE + DONE,
    )
    assert found.hidden
    assert (found.kind, found.wire) == ("all-gather", 24)
    assert (found.overlap, found.between) == (130, 2)
    assert found.scope == "jit(f)/layer/project"


def test_started_apart_with_nothing_in_between_is_exposed():
    (found,) = step(
        "%start = (bf16[4], bf16[16]) fusion(%x), kind=kCustom, calls=%fused.start, " + CYCLES % 1,
        "%done = bf16[16] fusion(%x), kind=kCustom, calls=%fused.done",
        "%work = bf16[16] fusion(%x), kind=kOutput, calls=%other, " + CYCLES % 100,
        others=START + DONE,
    )
    assert found.asynchronous
    assert not found.hidden


@pytest.mark.parametrize(
    ("start", "wire"),
    [
        # one operand: (operand, result)
        ("(f32[4]{0}, f32[16]{0}) all-gather-start(%x)", 64 * 3 / 4),
        # combined: ((operands), (results))
        ("((bf16[2], /*index=1*/f32[4]), (bf16[8], f32[16])) all-gather-start(%x, %y)", 80 * 3 / 4),
        ("((f32[16]), f32[4]) reduce-scatter-start(%x)", 64 * 3 / 4),
        ("((f32[16], f32[8]), (f32[4], f32[2])) reduce-scatter-start(%x, %y)", 96 * 3 / 4),
        # an all-reduce's type is its result
        ("f32[16] all-reduce-start(%x)", 2 * 64 * 3 / 4),
        ("(f32[16], f32[4]) all-reduce-start(%x, %y)", 2 * 80 * 3 / 4),
    ],
)
def test_gpu_pairs(start, wire):
    (found,) = step(
        f"%go = {start}, channel_id=1, {FSDP}",
        "%work = f32[16] fusion(%x), kind=kLoop, calls=%other",
        "%end = f32[16] done(%go)".replace("done(", start.split("-start")[0].split()[-1] + "-done("),
        "%late = f32[16] fusion(%x), kind=kLoop, calls=%other",
    )
    assert (found.wire, found.hidden, found.between) == (wire, True, 1)


def test_in_a_loop_once_for_each_trip():
    others = f"""%body (s: (s32[])) -> (s32[]) {{
  %g = bf16[16] all-gather(%x), channel_id=1, {FSDP}
}}

%condition (s: (s32[])) -> pred[] {{
  %n = s32[] constant(32)
  ROOT %c = pred[] compare(%i, %n), direction=LT
}}
"""
    (found,) = step("%w = (s32[]) while(%t), condition=%condition, body=%body", others=others)
    assert (found.times, found.in_loop, found.step_wire) == (32, True, 32 * 24)


MEGASCALE = (
    'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
    '_xla_host_transfer_rendezvous="psum.1_0",_xla_megascale_transfer_type="ALL_REDUCE"}'
)


def test_what_hosts_send_between_slices():
    mesh = {"replica": 2, "fsdp": 4}
    text = (
        "ENTRY %main (x: bf16[16]) -> bf16[16] {\n"
        f"  %send.1 = (bf16[16], u32[], token[]) send(%x, %after), channel_id=4, {MEGASCALE}\n"
        f"  %recv.1 = (bf16[16], u32[], token[]) recv(%after), channel_id=3, {MEGASCALE}\n"
        "  %work = bf16[16] fusion(%x), kind=kOutput, calls=%other, " + CYCLES % 7 + "\n"
        "  %send-done = token[] send-done(%send.1), channel_id=4\n"
        "  %recv-done = (bf16[16], token[]) recv-done(%recv.1), channel_id=3\n"
        "}\n"
    )
    (found,) = collectives(hlo.parse(text), mesh)
    assert (found.kind, found.axes, found.group) == ("all-reduce", ("replica",), (0, 4))
    assert found.wire == 2 * 32 / 2
    assert (found.hidden, found.overlap) == (True, 7)
