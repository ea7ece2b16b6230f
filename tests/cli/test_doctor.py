"""Every check of the doctor can find something wrong."""

import importlib.metadata
import socket

import pytest

from jaxlm.cli import doctor
from jaxlm.cli.doctor import OK, PROBLEM, WARNING


def states(findings):
    return [one.state for one in findings]


def test_packages():
    have = importlib.metadata.version("numpy")
    assert states(doctor.packages(["numpy>=1.0", "rich"])) == [OK]
    (old, missing) = doctor.packages(["numpy>=999", "no-such-package>=1"])
    assert (old.state, missing.state) == (PROBLEM, PROBLEM)
    assert old.text == f"numpy is {have}: pip install 'numpy>=999'"
    assert missing.text == "no-such-package is missing: pip install 'no-such-package>=1'"
    assert [one.state for one in doctor.packages()] == [OK]


def test_versions_agree_with_packaging():
    specifiers = pytest.importorskip("packaging.specifiers")
    bounds = [">=1.2", "==1.2.0", ">=1.2,<2", "<1.10", "!=1.2", "~=1.2.1", ">1.9"]
    for version in ("1.2", "1.2.0", "1.10", "2.0", "1.9.3", "1.2.5", "0.9"):
        for bound in bounds:
            expected = specifiers.SpecifierSet(bound).contains(version)
            assert doctor._satisfies(version, bound) == expected, (version, bound)


def test_devices_that_hang_crash_or_answer():
    assert states(doctor.devices("print('8|tpu|TPU v5p|4')")) == [OK]
    (hung,) = doctor.devices("import time; time.sleep(60)", seconds=0.5)
    assert (hung.state, "JAX_PLATFORMS=cpu" in hung.text) == (PROBLEM, True)
    (crashed,) = doctor.devices("raise RuntimeError('no driver')")
    assert crashed == (*crashed[:1], PROBLEM, "jax does not start: RuntimeError: no driver")


def test_disk_and_permission():
    assert states(doctor.disk("runs")) == [OK, OK]
    assert doctor.Finding("permission", PROBLEM, "").state in states(doctor.disk("/proc"))


def test_a_taken_port():
    with socket.socket() as one:
        one.bind(("", 0))
        one.listen()
        assert WARNING in states(doctor.network(one.getsockname()[1]))


def test_flags(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setenv("XLA_FLAGS", "--something")
    found = list(doctor.variables())
    assert "XLA_FLAGS=--something" in found[0].text
    assert found[1].state == WARNING


def test_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python,))
    assert doctor.main([]) == 0
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [doctor.Finding("a", PROBLEM, "b")],))
    assert doctor.main([]) == 1
    assert "1 problem, 0 warnings" in capsys.readouterr().out
