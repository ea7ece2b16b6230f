"""Flags reach the compiler of a run and of a plan; devices that cannot take them say so."""

import dataclasses

import jax
import pytest
from planning.small import experiment as small

from jaxlm.cli import main
from jaxlm.config.errors import UsageError
from jaxlm.planning.aot import compile_step
from jaxlm.train.setup import make_setup
from tests.train.conftest import KNOWN, UNKNOWN


def with_flags(*names: str):
    tree = small()
    return dataclasses.replace(tree, where=dataclasses.replace(tree.where, flags=names))


def test_flags_are_those_of_the_devices(host):
    four = jax.devices()[:4]
    assert make_setup(with_flags("good"), four).options == {KNOWN: True}
    assert make_setup(with_flags(), four).options == {}
    with pytest.raises(UsageError, match="async_gathers is for v4, v5e, v5p, v6e, tpu7x; host has good, bad"):
        make_setup(with_flags("async_gathers"), four)


def test_a_plan_is_compiled_with_them(host):
    with pytest.raises(Exception, match=UNKNOWN):
        compile_step(with_flags("bad"), jax.devices()[:4])


def test_a_run_is_compiled_with_them(host, ground):
    with pytest.raises(jax.errors.JaxRuntimeError, match=UNKNOWN):
        main(ground.words("bad", "--where.flags", "bad"))


def test_a_cpu_takes_none_and_says_so(ground, capsys):
    """And without a plan there is no line about one."""
    assert main(ground.words("cpu", "--where.flags", "async_gathers", "vmem")) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "where.flags" in line and "->" not in line]
    assert [line.split("s  ")[1] for line in said] == ["where.flags async_gathers vmem: not for cpu, left out"]
    assert not [line for line in lines if "plan" in line]
    manifest = ground.manifest("cpu")
    assert manifest["where"]["flags"] == ["async_gathers", "vmem"]
    assert manifest["compiler_options"] == {}


def test_flags_of_other_chips_are_refused_before_anything_is_made(host, ground, capsys):
    assert main(ground.words("refused", "--where.flags", "async_gathers")) == 2
    assert "async_gathers is for v4" in capsys.readouterr().err
    assert not (ground.path / "refused").exists()


def test_an_unknown_set_is_refused_with_the_nearest(ground, capsys):
    assert main(ground.words("unknown", "--where.flags", "async_gather")) == 2
    assert "no set 'async_gather'; nearest: async_gathers, " in capsys.readouterr().err
