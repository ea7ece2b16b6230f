"""Step times and utilization against published figures and by hand."""

import dataclasses

import pytest

from jaxlm import config
from jaxlm.config.chips import CHIPS
from jaxlm.planning import estimate
from jaxlm.planning.collectives import Collective
from jaxlm.planning.hlo import Instruction, Module

LLAMA = config.Decoder(
    vocab=32_000,
    embed=4096,
    layers=32,
    block=config.Block(config.Attention(32, 32, 128), config.Gated(11_008)),
    head=config.Untied(),
)


def experiment(flags: tuple[str, ...] = ()) -> config.Experiment:
    train, where = config.Train(steps=1000, batch=256, length=4096), config.Where(flags=flags)
    return config.Experiment(name="llama", model=LLAMA, train=train, where=where)


def splash(phase: str, rows: int) -> Instruction:
    """A splash attention call with the shapes of a chip's share."""
    shape = f"bf16[{rows},32,4096,128]{{3,2,1,0}}"
    parts = f"(bf16[{rows},4,32,4096,128], {shape})" if phase == "dkv" else f"({shape})"
    attributes = (
        ', custom_call_target="tpu_custom_call", '
        f"operand_layout_constraints={{{shape}, {shape}}}, frontend_attributes={{"
        r"\"block_q\": 1024, \"block_kv\": 1024, \"block_q_dkv\": 1024, \"block_kv_dkv\": 1024}"
    )
    return Instruction(f"splash_mha_{phase}", parts, "custom-call", (), attributes)


def compiled(milliseconds: float, clock: float, rows: int) -> Module:
    cycles = f'"estimated_cycles":"{round(milliseconds * 1e-3 * clock)}"'
    main = [Instruction("all", "f32[]", "fusion", (), cycles)]
    layer = [splash("fwd", rows), splash("dkv", rows)]
    return Module({"main": main, "layer": layer}, "main", {"main": 1, "layer": 32})


def waits(gib: float, hidden: bool = False) -> Collective:
    return Collective("all-gather", ("fsdp",), tuple(range(16)), gib * 2**30, 0, 1, hidden, between=int(hidden))


def planned(chip="v5p", devices=64, cycles=2143, sync=18.04, rows=4, flags=(), **options):
    return estimate.estimate(
        experiment(flags),
        CHIPS[chip],
        compiled(cycles, CHIPS[chip].clock, rows),
        [waits(sync), waits(19.0, hidden=True)],
        devices=devices,
        chips=devices,
        products=5e16,
        **options,
    )


def test_the_published_7b_on_64_v5p():
    found = planned()
    ideal = found.model_flops / (64 * CHIPS["v5p"].peak)
    assert 1e3 * ideal == pytest.approx(1530, rel=0.003)
    assert 1e3 * found.exposed == pytest.approx(54, rel=0.01)
    assert 1e3 * found.step == pytest.approx(2479, rel=0.003)
    assert found.mfu == pytest.approx(0.617, abs=0.002)
    assert found.hfu == pytest.approx(5e16 / (64 * 459e12 * found.step))


def test_the_published_7b_on_256_v5e():
    found = planned("v5e", 256, 1223, 21.4, rows=1)
    assert 1e3 * found.exposed == pytest.approx(128, rel=0.01)
    assert found.mfu == pytest.approx(0.588, abs=0.002)


def test_what_a_run_takes():
    found = planned(price=2.0)
    assert found.tokens_per_day == pytest.approx(256 * 4096 * 86_400 / found.step)
    assert found.chip_hours == pytest.approx(1000 * found.step * 64 / 3600)
    assert found.cost == pytest.approx(2 * found.chip_hours)
    assert planned("v6e").cost is None  # no price of it is known
    assert planned().cost == pytest.approx(4.2 * found.chip_hours)


def test_every_estimate_says_what_it_is_worth():
    assert "11 to 31 %" in planned().calibration
    assert "Uncalibrated: under the flags vmem " in planned(flags=("async_gathers", "vmem")).calibration
    assert "11 to 31 %" in planned(flags=("async_gathers",)).calibration


def test_hosts_share_their_network():
    h100 = CHIPS["h100"]
    assert h100.wire(range(8)) == 450e9
    assert h100.wire(range(64)) == 400e9  # eight adapters a host
    assert h100.wire(range(0, 64, 8)) == 50e9  # one of each host
    assert CHIPS["v5p"].wire(range(512)) == 4 * 90e9


def test_windows_count_only_where_all_layers_agree():
    local = dataclasses.replace(LLAMA.block, attention=config.Attention(32, 32, 128, window=1024))
    one = dataclasses.replace(experiment(), model=dataclasses.replace(LLAMA, block=local))
    both = dataclasses.replace(LLAMA, block=config.Pattern((local, LLAMA.block)))
    assert estimate.window(one) == 1024
    assert estimate.window(experiment()) is None
    assert estimate.window(dataclasses.replace(experiment(), model=both)) is None
