"""Ladders of sizes and branches of one run, as configs."""

import dataclasses
import subprocess
import sys

import pytest

from jaxlm import config
from jaxlm.config.check import check
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_of, parameters
from jaxlm.study.ladder import branches, ladder, lasting, narrower, of_flops, per_parameter, widened
from tests.base import experiment
from tests.tiny import KINDS

BASE = experiment()
SIZES = [(128, 2), (256, 4), (512, 6)]


def tokens(one):
    return one.train.steps * one.train.batch * one.train.length


def test_a_ladder_by_tokens_a_parameter():
    made = ladder(BASE, SIZES, [per_parameter(5), per_parameter(20)])
    assert len({one.name for one in made}) == 6
    for one, ratio in zip(made, [5, 20] * 3, strict=True):
        assert tokens(one) / parameters(one.model)["total"] == pytest.approx(ratio, rel=0.01)
        check(one)
    assert [(one.model.embed, one.model.layers) for one in made[::2]] == SIZES
    assert [one.model.block.attention.heads for one in made[::2]] == [2, 4, 8]
    assert [one.model.block.mlp.width for one in made[::2]] == [352, 704, 1408]
    assert {one.model.block.attention.head for one in made} == {64}


def test_a_ladder_by_flops():
    budgets = (1e15, 1e16)
    for one, budget in zip(ladder(BASE, SIZES, [of_flops(each) for each in budgets]), budgets * 3, strict=True):
        assert flops_of(one)["training"] * tokens(one) == pytest.approx(budget, rel=0.01)
    control = ladder(BASE, SIZES, [lambda one: 1e15 / (6 * parameters(one.model)["total"])])
    wrong = [flops_of(one)["training"] * tokens(one) / 1e15 for one in control]
    assert min(wrong) > 1.03  # 6 N D is another budget


def test_rates_fall_with_width_and_schedules_keep_their_shares():
    (small,), (large,) = (ladder(BASE, [size], [per_parameter(20)]) for size in ((128, 2), (512, 2)))
    peak = BASE.optimizer.schedule.peak
    assert small.optimizer.schedule.peak == pytest.approx(peak * 2**0.5)
    assert large.optimizer.schedule.peak == pytest.approx(peak / 2**0.5)
    (one,) = ladder(BASE, [(512, 2)], [per_parameter(20)], narrower(1.0))
    assert one.optimizer.schedule.peak == pytest.approx(peak / 2)
    (same,) = ladder(BASE, [(512, 2)], [per_parameter(20)], narrower(0.0))
    assert same.optimizer.schedule.peak == peak
    assert large.optimizer.schedule.warmup == round(large.train.steps * 50 / 600)
    stable = dataclasses.replace(BASE, optimizer=config.AdamW(config.WarmupStableDecay(decay=60, warmup=30)))
    long = lasting(stable, 6000).optimizer.schedule
    assert (long.decay, long.warmup) == (600, 300)


def test_mup_keeps_its_peak_at_all_widths():
    """Its own rule divides the layers' rates by the width: by another power of it they would fall twice."""
    base = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, parametrization=config.MuP()))
    for one in ladder(base, SIZES, [per_parameter(20)]):
        assert one.optimizer.schedule.peak == BASE.optimizer.schedule.peak
        check(one)
    (told,) = ladder(base, SIZES[-1:], [per_parameter(20)], narrower(1.0))
    assert told.optimizer.schedule.peak == BASE.optimizer.schedule.peak / 2


def test_the_base_itself_is_a_rung():
    (one,) = ladder(BASE, [(256, 4)], [lambda _: 600 * 16 * 256])
    assert dataclasses.replace(one, name=BASE.name) == BASE


@pytest.mark.parametrize("kind", ["decoder", "wired", "encoder", "encoder_decoder", "rwkv7"])
def test_every_kind_of_model_widens(kind):
    model = KINDS[kind]
    wide = widened(model, 2 * model.embed)
    assert widened(wide, model.embed) == model
    assert parameters(wide)["total"] > 2 * parameters(model)["total"]


def test_what_does_not_divide_is_refused():
    with pytest.raises(UsageError, match=r"attention\.heads is 4 at embed 256"):
        widened(BASE.model, 100)
    with pytest.raises(UsageError, match="less than one batch"):
        ladder(BASE, [(256, 4)], [of_flops(1e6)])


def test_branches_of_one_run():
    legs = branches(BASE, (200, 400, 800), 0.25)
    names = [leg.experiment.name for leg in legs]
    assert [leg.after for leg in legs] == ["", names[0], names[0], names[2], names[2], names[4]]
    stable, decayed = legs[::2], legs[1::2]
    assert [leg.experiment.train.steps for leg in stable] == [150, 300, 600]
    assert [leg.experiment.train.steps for leg in decayed] == [200, 400, 800]
    assert [leg.experiment.optimizer.schedule.decay for leg in decayed] == [50, 100, 200]
    assert {leg.experiment.optimizer.schedule.peak for leg in legs} == {3e-3}
    taken = 600 + 50 + 100 + 200
    assert taken < 0.7 * (200 + 400 + 800)


@pytest.mark.parametrize(
    ("steps", "decay"), [((400, 200), 0.2), ((60, 100), 0.2), ((200, 400), 1.0), ((200,), 0.0)]
)
def test_branches_that_do_not_follow_are_refused(steps, decay):
    with pytest.raises(UsageError, match="must rise"):
        branches(BASE, steps, decay)


def test_ladders_need_no_jax():
    program = "import sys, jaxlm.study.ladder; assert not {'jax', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
