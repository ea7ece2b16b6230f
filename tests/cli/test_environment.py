"""The one re-execution: when it happens, that it happens once, and that the command stays the same."""

import json
import os
import subprocess
import sys

import pytest

from jaxlm.cli import environment
from jaxlm.cli.environment import TUNABLES, accelerators, prepare, wanted
from jaxlm.config.chips import MEMORY_SHARE

PROGRAM = """
import json, os, sys
words = sys.argv[1:]
print(json.dumps([os.getpid(), words, os.environ.get("GLIBC_TUNABLES"), sys.flags.dont_write_bytecode]))
sys.stdout.flush()
from jaxlm.cli.environment import prepare
prepare(words)
print("end")
"""
OURS = ("GLIBC_TUNABLES", "JAXLM_REEXEC", "JAX_PLATFORMS")


def clean(**more):
    return {name: value for name, value in os.environ.items() if name not in OURS} | more


def test_a_gpu_gives_the_memory_that_plans_count_with(monkeypatch):
    monkeypatch.setattr(environment, "accelerators", lambda: ["/dev/nvidia0"])
    monkeypatch.setattr(environment, "wanted", lambda environ: False)
    monkeypatch.setattr(sys, "argv", ["jaxlm", "run"])
    for asked, taken in ((None, str(MEMORY_SHARE)), ("0.5", "0.5")):
        monkeypatch.delenv(environment.GPU_MEMORY, raising=False)
        if asked:
            monkeypatch.setenv(environment.GPU_MEMORY, asked)
        prepare(["run"])
        assert os.environ[environment.GPU_MEMORY] == taken


@pytest.mark.parametrize(
    ("asked", "runs", "devices"), [(None, 8, "4"), (None, 3, "3"), ("2", 8, "2"), (None, 1, None)]
)
def test_runs_of_one_program_have_a_device_for_each_core(monkeypatch, asked, runs, devices):
    monkeypatch.setattr(environment, "wanted", lambda environ: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(sys, "argv", ["jaxlm", "study"])
    monkeypatch.setenv(environment.CPU_DEVICES, asked or "")
    if asked is None:
        monkeypatch.delenv(environment.CPU_DEVICES)
    prepare(["study"], runs=runs)
    assert os.environ.get(environment.CPU_DEVICES) == devices
    monkeypatch.delenv(environment.CPU_DEVICES, raising=False)
    prepare(["not", "study"], runs=8)
    assert environment.CPU_DEVICES not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
@pytest.mark.parametrize("how", [["program.py"], ["-m", "program"]])
def test_the_same_command_runs_again_once(tmp_path, how):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-B", *how, "run", "a b", "--x=*"]
    environment = clean(JAX_PLATFORMS="cpu", PYTHONPATH=os.getcwd())
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    *starts, end = done.stdout.strip().split("\n")
    first, second = map(json.loads, starts)
    assert end == "end"
    assert first[:3] == [second[0], ["run", "a b", "--x=*"], None]
    assert second[1:] == [["run", "a b", "--x=*"], TUNABLES, 1]


def test_glibc_accepts_the_tunables():
    show = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--list-tunables"], capture_output=True, text=True)
    if show.returncode:
        pytest.skip("this glibc does not list its tunables")
    for one in TUNABLES.split(":"):
        assert one.split("=")[0] + ":" in show.stdout


def test_when(tmp_path):
    root = str(tmp_path)
    assert wanted({}, root, "linux")
    assert wanted({"JAX_PLATFORMS": "cpu"}, root, "linux")
    assert not wanted({}, root, "darwin")
    assert not wanted({"JAX_PLATFORMS": "cuda"}, root, "linux")
    assert not wanted({"JAX_PLATFORMS": "tpu,cpu"}, root, "linux")
    assert not wanted({"GLIBC_TUNABLES": ""}, root, "linux")
    assert not wanted({"JAXLM_REEXEC": "1"}, root, "linux")


@pytest.mark.parametrize("device", ["nvidia0", "accel0", "vfio/0", "kfd"])
def test_an_accelerator_is_left_alone(tmp_path, device):
    file = tmp_path / "dev" / device
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert accelerators(str(tmp_path)) == [str(file)]
    assert not wanted({}, str(tmp_path), "linux")
    assert wanted({"JAX_PLATFORMS": "cpu"}, str(tmp_path), "linux")


def test_called_as_a_function_it_does_nothing(monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("re-executed"))
    monkeypatch.setattr("jaxlm.cli.environment.wanted", lambda *_: True)
    prepare(["run", "something else than pytest's own words"])
