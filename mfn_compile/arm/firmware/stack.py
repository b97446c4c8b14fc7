"""Worst-case stack of every exported function, proved from the machine code.

The stack pointer's depth is followed through every path of every function, and added up along the
calls. Frames of a fixed size, frame pointers and over-aligned frames are understood; anything else
that changes the stack pointer is an error, as is recursion or a jump whose target is not known.

The one call through a pointer is that of the parallel_for which mfn_embed_parallel is given. What
that function itself takes is its writer's to know; it runs the functions whose addresses it gets,
and these count as if they were called in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from mfn_compile.arm.firmware.code import WORD, Function, Instruction, read_functions, unclear
from mfn_compile.arm.firmware.elf import PROVIDED
from mfn_compile.errors import InternalCheckError
from mfn_compile.frozen import Frozen

WRITEBACK = re.compile(
    r"\[sp(?:, #(?P<before>-?\w+)\]!|\], (?:#(?P<after>-?\w+)|(?P<register>\w+)))"
)
OTHER_WRITEBACK = re.compile(r"\[(?P<base>x\d+)(?:, [^\]]*\]!|\], )")
REGISTER = re.compile(r"[wx](\d+)$")
ARITHMETIC = ("add", "sub")
COMPARISONS = ("cmp", "cmn", "tst", "ccmp", "ccmn")
ENDS = ("ret", "retaa", "retab", "brk", "udf", "hlt")
INDIRECT = ("br", "blr", "braa", "blraa", "brab", "blrab", "braaz", "blraaz", "eret")
CLOBBERED = (*range(19), 30)  # by a call; the others are the callee's to keep
GIVEN = "mfn_embed_parallel"  # exported functions of this prefix call one that they were given

Place = tuple[str, int]  # ("sp", depth it points at) or ("number", value)


class StackRow(Frozen):
    """Worst-case stack of one exported function."""

    function: str
    bytes: int = Field(description="its own frame and those of everything that it calls")
    task: int = Field(
        default=0,
        description="of these, the deepest task that it hands to a function it is given, which "
        "itself is not counted; every thread that runs tasks needs so much",
    )
    chain: tuple[str, ...] = Field(description="the deepest path of calls, itself first")
    external: tuple[str, ...] = Field(description="functions of the C library; not in `bytes`")


@dataclass(frozen=True)
class _Frame:
    """One function: its own deepest point, and the depth at each of its calls."""

    deepest: int
    calls: tuple[tuple[int, str], ...]
    external: tuple[str, ...]
    tasks: tuple[tuple[int, str], ...]  # what it hands to a function that it was given


@dataclass(frozen=True)
class _Total:
    """A function with everything below it."""

    bytes: int
    chain: tuple[str, ...]
    external: frozenset[str]
    task: int


@dataclass
class _Found:
    """Calls that were met on the way through a function, each with the depth there."""

    calls: set[tuple[int, str]] = field(default_factory=set)
    external: set[str] = field(default_factory=set)
    given: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _State:
    depth: int
    registers: Mapping[int, Place]


def stack_rows(
    objects: Mapping[str, bytes], *, allowed: frozenset[str] = PROVIDED
) -> tuple[StackRow, ...]:
    """Worst-case stack of every exported function of some objects, by name.

    Args:
        objects: relocatable objects, all that are linked together, by name.
        allowed: functions from outside, which may be called.

    Raises:
        InternalCheckError: recursion, a stack pointer or a jump that cannot be followed, or a call
            of a function that is not there.
    """
    functions = read_functions(objects)
    frames = {key: _frame(function, allowed) for key, function in functions.items()}
    totals: dict[str, _Total] = {}
    for key in frames:
        _total(key, frames, totals, ())
    return tuple(
        StackRow(
            function=functions[key].symbol,
            bytes=totals[key].bytes,
            task=totals[key].task,
            chain=tuple(functions[link].symbol for link in totals[key].chain),
            external=tuple(sorted(totals[key].external)),
        )
        for key in sorted(frames)
        if functions[key].exported
    )


def _total(
    key: str,
    frames: Mapping[str, _Frame],
    totals: dict[str, _Total],
    path: tuple[str, ...],
) -> _Total:
    if key in path:
        circle = " -> ".join([*path[path.index(key) :], key])
        raise InternalCheckError(
            "The stack of the compiled code has no limit",
            where=key,
            why=f"it calls itself: {circle}",
            hint="Report it with the command that you ran",
        )
    if key not in totals:
        frame = frames[key]
        most, external, task = frame.deepest, frozenset(frame.external), 0
        chain: tuple[str, ...] = (key,)
        for depth, callee in (*frame.calls, *frame.tasks):
            below = _total(callee, frames, totals, (*path, key))
            external |= below.external
            task = max(task, below.bytes if (depth, callee) in frame.tasks else below.task)
            if depth + below.bytes > most:
                most, chain = depth + below.bytes, (key, *below.chain)
        totals[key] = _Total(most, chain, external, task)
    return totals[key]


def _frame(function: Function, allowed: frozenset[str]) -> _Frame:
    """Follow the stack pointer through every path of one function."""
    code = {instruction.address: instruction for instruction in function.instructions}
    if function.start not in code:
        raise unclear(function.key, "it begins with data")
    states = {function.start: _State(0, {})}
    work, deepest = [function.start], 0
    found = _Found()
    while work:
        address = work.pop()
        instruction, state = code[address], states[address]
        after = _step(function, instruction, state)
        deepest = max(deepest, after.depth)
        if instruction.mnemonic.startswith("ret") and after.depth:
            raise _unknown(function, instruction, f"{after.depth} bytes are left on the stack")
        for target in _successors(function, instruction, after, found):
            if target in code and _merge(function, instruction, states, target, after):
                work.append(target)
    outside = found.external - allowed
    if outside:
        raise unclear(function.key, f"it calls {', '.join(sorted(outside))}, which is not there")
    tasks = [(depth, key) for depth in sorted(found.given) for key in sorted(function.taken)]
    calls, external = sorted(found.calls), sorted(found.external)
    return _Frame(deepest, tuple(calls), tuple(external), tuple(tasks))


def _successors(
    function: Function,
    instruction: Instruction,
    state: _State,
    found: _Found,
) -> list[int]:
    """Where execution goes on inside of the function; calls that are made are noted."""
    following = instruction.address + WORD
    if instruction.mnemonic == "blr" and function.exported and function.symbol.startswith(GIVEN):
        found.given.add(state.depth)
        return [following]
    if instruction.mnemonic in INDIRECT:
        raise _unknown(function, instruction, "its target is not known")
    if instruction.mnemonic in ENDS:
        return []
    jump = function.jumps.get(instruction.address)
    if jump is None:
        return [following]
    places = [] if instruction.mnemonic == "b" else [following]
    if jump.address is not None:
        return [*places, jump.address]
    if jump.function is not None:
        found.calls.add((state.depth, jump.function))
    elif jump.outside is not None:
        found.external.add(jump.outside)
    return places


def _merge(
    function: Function,
    instruction: Instruction,
    states: dict[int, _State],
    target: int,
    state: _State,
) -> bool:
    """Join a path with what is known at `target`; whether anything there is new."""
    known = states.get(target)
    if known is None:
        states[target] = state
        return True
    if known.depth != state.depth:
        raise _unknown(
            function,
            instruction,
            f"two paths meet with {known.depth} and {state.depth} bytes on the stack",
        )
    same = {r: p for r, p in known.registers.items() if state.registers.get(r) == p}
    if len(same) == len(known.registers):
        return False
    states[target] = _State(known.depth, same)
    return True


def _step(function: Function, instruction: Instruction, state: _State) -> _State:
    """The state behind one instruction."""
    operands, mnemonic = instruction.operands, instruction.mnemonic
    if mnemonic in ("bl", "blr", "svc"):
        kept = {r: p for r, p in state.registers.items() if r not in CLOBBERED}
        return _State(state.depth, kept)
    if state.registers or "sp" in operands or mnemonic == "mov":
        parts = [part.strip() for part in operands.split(",")]
        depth = _depth(function, instruction, state, parts)
        return _State(depth, _registers(instruction, state, parts))
    return state


def _depth(function: Function, instruction: Instruction, state: _State, parts: list[str]) -> int:
    """The depth behind one instruction."""
    writeback = WRITEBACK.search(instruction.operands)
    depth: int | None
    if writeback is not None:
        if writeback["register"]:
            raise _unknown(function, instruction, "a register is added to the stack pointer")
        depth = state.depth - int(writeback["before"] or writeback["after"], 0)
    elif parts[0] not in ("sp", "wsp") or instruction.mnemonic in COMPARISONS:
        return state.depth
    else:
        value = _value(instruction, state, parts)
        depth = value[1] if value is not None and value[0] == "sp" else None
    if depth is None:
        raise _unknown(function, instruction, "the stack pointer gets an unknown value")
    if depth < 0:
        raise _unknown(function, instruction, "the stack pointer rises above the caller's frame")
    return depth


def _registers(instruction: Instruction, state: _State, parts: list[str]) -> Mapping[int, Place]:
    """Registers that are known to hold a place on the stack, or a number."""
    mnemonic = instruction.mnemonic
    written: list[str] = []
    branch = instruction.branches or mnemonic in COMPARISONS
    exclusive = mnemonic.startswith(("stx", "stlx"))
    if not branch and (exclusive or not mnemonic.startswith(("st", "prfm"))):
        written.append(parts[0])
        if mnemonic.startswith(("ld", "swp", "cas")):
            written += parts[1:2]
    base = OTHER_WRITEBACK.search(instruction.operands)
    if base is not None:
        written.append(base["base"])
    matches = [REGISTER.match(name) for name in written]
    numbers = {int(match[1]) for match in matches if match}
    if not numbers:
        return state.registers
    registers = {r: p for r, p in state.registers.items() if r not in numbers}
    value = _value(instruction, state, parts) if parts[0].startswith(("x", "w")) else None
    # A number may come through a w register, a place needs all 64 bits.
    whole = value is not None and (parts[0].startswith("x") or value[0] == "number")
    if value is not None and whole and len(numbers) == 1 and base is None:
        registers[numbers.pop()] = value
    return registers


def _value(instruction: Instruction, state: _State, parts: list[str]) -> Place | None:
    """What mov, add, sub and and put into their first operand; None when it is not known."""
    mnemonic = instruction.mnemonic
    if mnemonic == "mov" and len(parts) == 2:
        return _operand(state, parts[1])
    if len(parts) < 3 or mnemonic not in (*ARITHMETIC, "and"):
        return None
    base, number = _operand(state, parts[1]), _operand(state, parts[2])
    if base is None or number is None or base[0] != "sp" or number[0] != "number":
        return None
    amount = number[1]
    if len(parts) == 4:
        shift = re.fullmatch(r"lsl #(\d+)", parts[3])
        if shift is None and parts[3] not in ("uxtx", "uxtx #0"):
            return None
        amount <<= int(shift[1]) if shift else 0
    if mnemonic == "and":
        hole = (1 << 64) - (amount & (1 << 64) - 1)  # rounds down: at most this much deeper
        return ("sp", base[1] + hole - 1) if hole & (hole - 1) == 0 else None
    return ("sp", base[1] + (amount if mnemonic == "sub" else -amount))


def _operand(state: _State, text: str) -> Place | None:
    if text == "sp":
        return ("sp", state.depth)
    if text.startswith("#"):
        return ("number", int(text[1:], 0))
    match = REGISTER.match(text)
    return state.registers.get(int(match[1])) if match else None


def _unknown(function: Function, instruction: Instruction, why: str) -> InternalCheckError:
    offset = instruction.address - function.start
    return unclear(function.key, f"the instruction {instruction.text} at +0x{offset:x}: {why}")
