"""Scheduled HLO text as computations and instructions, and how often a step executes each.

XLA's own cost analysis counts the body of a loop once; here every computation carries the number of times that
one step runs it. Reads what TPU and GPU compilers print, which differ from each other and from the grammar:
TPU text has no trip counts (they are read from the loop's condition), Pallas calls print metadata over several
lines, some of which start with a brace, and what runs on another core is a computation that ends in its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

BITS = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2", "f8e4m3", "f8e4m3b11fnuz", "f8e5m2fnuz"), 8),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
    **dict.fromkeys(("s4", "u4"), 4),
    "c128": 128,
}
"""Bits of an element; types that are not here (tokens, opaque) take no space."""

UNKNOWN = 2**63 - 1
"""Cycles that stand for none that are known."""
_ARRAY = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_END = re.compile(r"^\}(, execution_thread=\"[^\"]*\")?\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")


def arrays(type_text: str) -> list[tuple[str, tuple[int, ...]]]:
    """(element type, shape) of each array in a type, tuples flattened."""
    return [
        (kind, tuple(int(n) for n in dims.split(",") if n))
        for kind, dims in _ARRAY.findall(type_text)
        if kind in BITS
    ]


def size(type_text: str) -> int:
    """Bytes of a type, all elements of a tuple together, padding of tiles not counted."""
    return sum(BITS[kind] * prod(shape) for kind, shape in arrays(type_text)) // 8


def elements(type_text: str) -> list[str]:
    """The members of a tuple type; a type that is no tuple is its own only member."""
    if not type_text.startswith("("):
        return [type_text]
    found, depth, start = [], 0, 1
    for i, character in enumerate(type_text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            found.append(type_text[start:i].strip())
            start = i + 1
    return [re.sub(r"/\*.*?\*/", "", one) for one in found if one]


def flat(type_text: str) -> list[str]:
    """The arrays of a type, tuples within tuples opened."""
    members = elements(type_text)
    return members if members == [type_text] else [each for one in members for each in flat(one)]


@dataclass(frozen=True)
class Instruction:
    """One line: `name = type op(operands), attributes`."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    attributes: str
    literal: str = ""
    """What stands between the parentheses."""
    root: bool = False

    @property
    def cycles(self) -> int:
        """The TPU compiler's estimate for one execution; 0 where it gives none (Pallas calls, collectives)."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found and not self.unknown else 0

    @property
    def unknown(self) -> bool:
        """Whether the compiler says that it cannot tell the cycles (SparseCore)."""
        return f'"estimated_cycles":"{UNKNOWN}"' in self.attributes

    @property
    def scope(self) -> str:
        """The operation's path in the traced program."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *roles: str) -> list[str]:
        """Computations named by attributes such as `calls`, `body` or `to_apply`."""
        return [name for role in roles for name in re.findall(rf"\b{role}=%?([\w.\-]+)", self.attributes)]

    @property
    def branches(self) -> list[str]:
        """Computations of a conditional."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = re.findall(r"%?([\w.\-]+)", listed[1]) if listed else []
        return names or self.called("true_computation", "false_computation")


@dataclass(frozen=True)
class Module:
    """A program: its computations by name, and the one that starts."""

    computations: dict[str, list[Instruction]]
    entry: str
    executions: dict[str, int] = field(default_factory=dict)
    """How often one step runs each computation that is scheduled by itself (not inside a fusion)."""

    def scheduled(self) -> Iterator[tuple[str, int, list[Instruction]]]:
        """(computation, times a step runs it, its instructions in order)."""
        for name, times in self.executions.items():
            yield name, times, self.computations[name]

    @property
    def cycles(self) -> int:
        """Estimated cycles of one step, loops multiplied out, without Pallas calls and collectives."""
        return sum(times * sum(one.cycles for one in body) for _, times, body in self.scheduled())


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`. Raises ValueError where there is no entry computation."""
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if not current:
            if header := _HEADER.match(line):
                current = header[2]
                computations[current] = []
                entry = current if header[1] else entry
        elif _END.match(line):
            current = ""
        elif match := _INSTRUCTION.match(line):
            computations[current].append(_instruction(match[2], match[3], bool(match[1])))
        elif computations[current]:  # an instruction that goes on over several lines
            last = computations[current].pop()
            computations[current].append(
                Instruction(
                    last.name, last.type, last.op, last.operands, last.attributes + line, last.literal, last.root
                )
            )
    if not entry:
        raise ValueError("no ENTRY computation in the HLO text")
    module = Module(computations, entry)
    _count(module, entry, 1)
    return module


def _instruction(name: str, text: str, root: bool) -> Instruction:
    at = _outside(text, " ")  # the type ends at the first blank outside of brackets
    kind, text = text[:at], text[at + 1 :]
    op, _, text = text.partition("(")
    end = _outside(text, ")")
    operands = tuple(re.findall(r"%([\w.\-]+)", text[:end]))
    return Instruction(name, kind, op, operands, text[end + 1 :], text[:end], root)


def _outside(text: str, wanted: str) -> int:
    """Where a character first stands outside of brackets; the end where it does not."""
    depth = 0
    for at, character in enumerate(text):
        if depth == 0 and character == wanted:
            return at
        depth += (character in "([{") - (character in ")]}")
    return len(text)


def _count(module: Module, name: str, times: int) -> None:
    """Adds executions of a computation and of everything it runs."""
    module.executions[name] = module.executions.get(name, 0) + times
    for one in module.computations[name]:
        if one.op == "while":
            trips = trip_count(module, name, one)
            for body in one.called("body"):
                _count(module, body, times * trips)
        elif one.op == "conditional":
            # One branch runs: the dearest, so that the estimate does not promise too much.
            _count(module, max(one.branches, key=lambda branch: _cost(module, branch)), times)
        elif one.op in ("call", "call-start"):
            for called in one.called("to_apply", "calls"):
                _count(module, called, times)


def _cost(module: Module, name: str) -> tuple[int, int]:
    """(cycles, instructions) of a computation with everything in it."""
    alone = Module(module.computations, name)
    _count(alone, name, 1)
    return alone.cycles, sum(times * len(body) for _, times, body in alone.scheduled())


def trip_count(module: Module, parent: str, loop: Instruction) -> int:
    """How often a loop's body runs: as the compiler says, else from its condition `counter < limit`."""
    if known := re.search(r"known_trip_count\D*(\d+)", loop.attributes):
        return int(known[1])
    condition = {one.name: one for one in module.computations[loop.called("condition")[0]]}
    test = next((one for one in condition.values() if one.root), None)
    if test is None:
        return 1
    limits = [_constant(condition, name) for name in test.operands]
    limit = next((value for value in limits if value is not None), None)
    if limit is None:  # the limit is an operand of the loop, or hides in a fusion
        inside = [_literal(one) for one in condition.values()]
        return max([value for value in inside if value is not None], default=1)
    return max(limit - (_start(module, parent, loop, condition, test) or 0), 1)


def _start(module, parent: str, loop: Instruction, condition: dict, test: Instruction) -> int | None:
    """The counter's value before the loop, where it is a constant."""
    counter = next((condition.get(name) for name in test.operands if _constant(condition, name) is None), None)
    index = re.search(r"index=(\d+)", counter.attributes) if counter else None
    outside = {one.name: one for one in module.computations[parent]}
    initial = outside.get(loop.operands[0]) if loop.operands else None
    if index is None or initial is None or initial.op != "tuple" or int(index[1]) >= len(initial.operands):
        return None
    return _constant(outside, initial.operands[int(index[1])])


def _constant(within: dict[str, Instruction], name: str) -> int | None:
    """The integer an instruction holds, through copies."""
    one = within.get(name)
    while one is not None and one.op in ("copy", "bitcast", "convert") and one.operands:
        one = within.get(one.operands[0])
    return None if one is None else _literal(one)


def _literal(one: Instruction) -> int | None:
    if one.op != "constant" or not re.fullmatch(r"-?\d+", one.literal.strip()):
        return None
    return int(one.literal)
