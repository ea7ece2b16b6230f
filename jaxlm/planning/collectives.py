"""What chips send each other in a step: each collective with its bytes, how often, and whether it waits.

Bytes are those that one chip sends over its links: an all-gather its result times (n-1)/n for groups of n, a
reduce-scatter its input times (n-1)/n, an all-reduce twice that, a permutation all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxlm.planning.groups import axes_of, group
from jaxlm.planning.hlo import Instruction, Module, arrays, elements, size

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
COMPUTE = ("fusion", "custom-call", "convolution", "dot")


@dataclass(frozen=True)
class Collective:
    """One instruction of the program and what it costs in a step."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes it joins; empty where its groups are no product of them."""
    group: tuple[int, ...]
    """Device numbers of its first group."""
    wire: float
    """Bytes that a chip sends, each time."""
    payload: int
    """Bytes of the whole: of a gather its result, of a reduction its input."""
    times: int
    """Executions in a step."""
    asynchronous: bool
    """Started and awaited by instructions of their own."""
    overlap: int = 0
    """Estimated cycles of what is scheduled between start and end."""
    between: int = 0
    """Kernels scheduled between start and end."""
    dtype: str = ""
    scope: str = ""

    @property
    def in_loop(self) -> bool:
        """Whether a step executes it more than once."""
        return self.times > 1

    @property
    def hidden(self) -> bool:
        """Whether work is scheduled between its start and its end; else the chip waits for it."""
        return self.asynchronous and self.between > 0

    @property
    def step_wire(self) -> float:
        """Bytes that a chip sends in a step."""
        return self.wire * self.times


@dataclass(frozen=True)
class _Part:
    """How one instruction takes part in a collective."""

    kind: str
    role: str
    """"sync", "start", "step" (compute that goes on meanwhile) or "done"."""
    type: str
    key: str
    """Equal for the parts of one collective."""
    attributes: str
    scattered: bool = False
    """An all-reduce whose result is cut at once: a reduce-scatter whose type is its input's."""


def collectives(module: Module, mesh: Mapping[str, int]) -> list[Collective]:
    """Every collective of a step, in the order of the program; those that move nothing are left out."""
    devices = 1
    for count in mesh.values():
        devices *= count
    found: list[Collective] = []
    for _, times, body in module.scheduled():
        open_: dict[str, int] = {}
        received = {one.name: between[1] for one in body if one.op == "recv" and (between := _between_slices(one))}
        for one in body:
            part = _part(module, one) or _part_between_slices(one, received)
            if part is not None and part.role == "done":
                open_.pop(part.key, None)
            elif part is not None and part.role in ("sync", "start"):
                collective = _costed(part, times, mesh, devices)
                if part.role == "start":
                    open_[part.key] = len(found)
                found.append(collective)
            if open_ and (one.op in COMPUTE or one.op == "while"):
                starting = part is not None and part.role == "start"
                for key, at in open_.items():
                    if not (starting and key == part.key):
                        earlier = found[at]
                        found[at] = replace(
                            earlier, overlap=earlier.overlap + one.cycles, between=earlier.between + 1
                        )
    return [one for one in found if one.wire]


def _part(module: Module, one: Instruction) -> _Part | None:
    kind = next((kind for kind in KINDS if one.op in (kind, f"{kind}-start", f"{kind}-done")), None)
    if kind is not None:
        if one.op == kind:
            return _Part(kind, "sync", one.type, one.name, one.attributes)
        if one.op.endswith("-done"):
            return _Part(kind, "done", "", one.operands[0], "")
        return _Part(kind, "start", _result(kind, one.type), one.name, one.attributes)
    if one.op in ("async-done", "async-update", "call-done") and one.operands:
        return _Part("", "done" if one.op.endswith("done") else "step", "", one.operands[0], "")
    inside = [each for name in one.called("calls", "to_apply") for each in module.computations.get(name, ())]
    inner = next((each for each in inside if each.op in KINDS), None)
    if inner is None or one.op not in ("fusion", "async-start", "call-start"):
        return None
    if one.op != "fusion":
        return _Part(inner.op, "start", inner.type, one.name, inner.attributes)
    channel = re.search(r"channel_id=(\d+)", inner.attributes)
    key = f"channel {channel[1]}" if channel else inner.name
    called = one.called("calls")[0]
    markers = {mark for each in inside for mark in ("Start", "Done") if f"AsyncCollective{mark}" in each.attributes}
    role = "start" if "Start" in markers else "done" if "Done" in markers else "sync"
    if role == "sync" and "async_collective_fusion" in called + one.name:
        role = "step"
    return _Part(inner.op, role, inner.type, key, inner.attributes, "all-reduce-scatter" in called + one.name)


def _between_slices(one: Instruction) -> tuple[str, str] | None:
    """(Kind of collective, its key) of a send or receive by a host for slices that a network joins (Megascale)."""
    if "xla_megascale_runtime" not in one.attributes:
        return None
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)
    key = re.search(r'_xla_host_transfer_rendezvous="([^"]+)"', one.attributes)
    return (kind[1].lower().replace("_", "-"), key[1]) if kind and key else None


def _part_between_slices(one: Instruction, received: Mapping[str, str]) -> _Part | None:
    """What is sent is on its way until what comes back for it has been received; `received`: name -> key."""
    if one.op == "recv-done" and one.operands[0] in received:
        return _Part("", "done", "", received[one.operands[0]], "")
    between = _between_slices(one) if one.op == "send" else None
    return _Part(between[0], "start", elements(one.type)[0], between[1], one.attributes) if between else None


def _result(kind: str, type_text: str) -> str:
    """The type of what a `-start` will give: the second of (operands, results, contexts); all of an all-reduce."""
    members = elements(type_text)
    return type_text if kind == "all-reduce" or len(members) < 2 else members[1]


def _costed(part: _Part, times: int, mesh: Mapping[str, int], devices: int) -> Collective:
    slices = mesh.get("replica", 1)
    # The host's transfers name no groups: a chip of each slice, which are the first axis of the mesh.
    network = "xla_megascale_runtime" in part.attributes
    members = tuple(range(0, devices, devices // slices)) if network else group(part.attributes, devices)
    n, amount = len(members), size(part.type)
    kind = "reduce-scatter" if part.scattered and part.kind == "all-reduce" else part.kind
    payload = amount * n if kind == "reduce-scatter" and not part.scattered else amount
    share = (n - 1) / n
    wire = {"all-reduce": 2 * share, "collective-permute": 1.0, "collective-broadcast": 1.0}.get(
        kind, share
    ) * payload
    if n == 1:
        wire = 0.0
    scope = re.search(r'op_name="([^"]*)"', part.attributes)
    found = arrays(part.type)
    return Collective(
        kind=kind,
        axes=axes_of(members, mesh),
        group=members,
        wire=wire,
        payload=payload,
        times=times,
        asynchronous=part.role == "start",
        dtype=found[0][0] if found else "",
        scope=scope[1] if scope else "",
    )
