"""One process is spared all of it; what several do is drilled with real ones in tests/drills."""

import atexit

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxlm.cluster import together as module
from jaxlm.cluster.together import compiled, leaving, together
from jaxlm.config.errors import Failure, UsageError


def fail():
    raise UsageError("no")


def test_one_process_just_acts(monkeypatch):
    monkeypatch.setattr(atexit, "register", lambda *_: pytest.fail("nothing is left behind"))
    assert together(lambda: 3) == 3
    with pytest.raises(UsageError, match="no"), leaving():
        together(fail)


@pytest.mark.parametrize(("codes", "kind"), [([0, 2], UsageError), ([1, 0], Failure)])
def test_another_processes_failure_is_raised_here(monkeypatch, codes, kind):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(module.multihost_utils, "process_allgather", lambda mine: np.asarray(codes))
    with pytest.raises(kind, match=f"process {codes.index(max(codes))} could not go on"):
        together(lambda: 3)
    with pytest.raises(UsageError) as mine:
        together(fail)
    assert str(mine.value) == "no"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (Failure("no"), 1),
        (ValueError("no"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(75), 75),
    ],
)
def test_several_leave_with_their_own_code(monkeypatch, error, code):
    registered = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(atexit, "register", lambda *what: registered.append(what))
    with pytest.raises(type(error)), leaving():
        raise error
    assert registered == [(module._leave, code)]
    with pytest.raises(Failure, match="another process of this run has gone"), leaving():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")


def test_programs_wait_for_those_of_the_others(monkeypatch):
    order = []

    class Lowered:
        def compile(self, compiler_options):
            order.append(("compile", compiler_options))
            return "program"

    def meet(key, timeout_ms):
        order.append(key)

    monkeypatch.setattr(ocp.multihost, "get_barrier_sync_fn", lambda: meet)
    assert compiled(Lowered(), {"a": 1}) == "program"
    assert order == [("compile", {"a": 1}), "compiled"]


def test_a_process_that_has_gone_while_others_compile(monkeypatch):
    def meet(key, timeout_ms):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmore")

    monkeypatch.setattr(ocp.multihost, "get_barrier_sync_fn", lambda: meet)
    with pytest.raises(Failure, match=r"has gone: .* \(DEADLINE_EXCEEDED: Barrier timed out\)$"):
        compiled(jax.jit(lambda: 1).lower())
