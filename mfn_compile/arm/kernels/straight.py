"""Straight-line AArch64 code: instructions on values become text, in an order that suits a core.

A value is a number; it is written once and lies in a vector register or, as half of an operand on
its way there, in a general one. Out-of-order cores get the instructions as they were added. For
in-order cores a list scheduler simulates dual issue: a 128-bit vector instruction or a store
first, a load, a move or a scalar addition beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mfn_compile.arm.kernels.knobs import Loads

VECTORS = tuple(f"v{i}" for i in range(32))
CARRIERS = tuple(f"x{i}" for i in range(20, 28))
_WINDOW = 96  # instructions that may be overtaken
_LATENCY = {"ldr": 3, "ins": 2, "mov": 1, "movk": 1, "bfi": 1, "add": 3}
_LATENCY |= dict.fromkeys(("zip1", "zip2", "uzp1", "saddw", "saddw2", "cmlt", "bsl"), 2)
_USUAL = 4  # cycles, of the other instructions


@dataclass(frozen=True)
class Line:
    """An instruction. `text` has places for registers: the result first, then what is read.

    Attributes:
        writes: the value that it makes, if any.
        reads: values; with `tied` the first of them dies and its register gets the result.
        side: whether it can issue beside vector arithmetic.
        base: the pointer of a load or store, or the one that an addition moves.
        moves: that it is such an addition.
    """

    text: str
    writes: int | None = None
    reads: tuple[int, ...] = ()
    tied: bool = False
    side: bool = False
    base: str = ""
    moves: bool = False

    @property
    def is_load(self) -> bool:
        """Whether it takes the port of the loads."""
        return self.text.startswith("ldr")

    @property
    def latency(self) -> int:
        """Cycles until the result can be read."""
        name, _, rest = self.text.partition(" ")
        return 1 if name == "add" and rest[:4] == "{0}," else _LATENCY.get(name, _USUAL)


@dataclass
class Code:
    """Instructions in the order in which they are added."""

    loads: Loads
    carriers: tuple[str, ...] = CARRIERS
    lines: list[Line] = field(default_factory=list)
    general: set[int] = field(default_factory=set)
    count: int = 0

    def value(self) -> int:
        """A number for a value that is there already."""
        self.count += 1
        return self.count

    def make(self, text: str, *reads: int, side: bool = False, base: str = "") -> int:
        """Add an instruction that writes a new register; the value."""
        found = self.value()
        self.lines.append(Line(text, found, reads, side=side, base=base))
        return found

    def change(self, text: str, first: int, *reads: int, side: bool = False) -> int:
        """Add an instruction that overwrites the register of `first`; the new value."""
        found = self.value()
        self.lines.append(Line(text, found, (first, *reads), tied=True, side=side))
        return found

    def load(self, base: str, offset: int, size: int = 16) -> int:
        """16 or 8 bytes at `offset` from a pointer."""
        place = f"[{base}, {offset}]"
        if self.loads == "general":
            found = self._into_lane("ins {0}.d[0], {1}", place, base)
        elif size == 16 and self.loads == "whole":
            return self.make(f"ldr {{0:q}}, {place}", side=True, base=base)
        else:
            found = self.make(f"ldr {{0:d}}, {place}", side=True, base=base)
        if size == 8:
            return found
        carrier = self._carrier(f"[{base}, {offset + 8}]", base)
        return self.change("ins {0}.d[1], {1}", found, carrier, side=True)

    def store(self, value: int, base: str, offset: int) -> None:
        """8 bytes to `offset` from a pointer."""
        self.lines.append(Line(f"str {{0:d}}, [{base}, {offset}]", reads=(value,), base=base))

    def store_word(self, value: int, lane: int, base: str, offset: int) -> None:
        """4 bytes of a lane to `offset` from a pointer."""
        if lane == 0:
            self.lines.append(Line(f"str {{0:s}}, [{base}, {offset}]", reads=(value,), base=base))
            return
        place = self._pointer(base, offset)
        self.lines.append(Line(f"st1 {{{{{{0}}.s}}}}[{lane}], [{{1}}]", reads=(value, place)))

    def load_words(self, base: str, low: int, high: int) -> int:
        """8 bytes: 4 from each of two offsets from a pointer."""
        if self.loads == "whole":
            first = self.make(f"ldr {{0:s}}, [{base}, {low}]", side=True, base=base)
            place = self._pointer(base, high)
            return self.change("ld1 {{{0}.s}}[1], [{1}]", first, place, side=True)
        parts = [self._general(f"ldr {{0:w}}, [{base}, {at}]", base) for at in (low, high)]
        both = self.change("bfi {0}, {1}, 32, 32", *parts, side=True)
        self.general.add(both)
        return self.make("ins {0}.d[0], {1}", both, side=True)

    def _pointer(self, base: str, offset: int) -> int:
        """A general register that points to an offset of at most 16 bits from a pointer."""
        if offset < 4096:
            return self._general(f"add {{0}}, {base}, {offset}", base)
        distance = self._general(f"mov {{0}}, {offset}")
        found = self.make(f"add {{0}}, {base}, {{1}}", distance, side=True, base=base)
        self.general.add(found)
        return found

    def advance(self, base: str, distance: int) -> None:
        """Move a pointer, once everything above has used it."""
        text = f"add {base}, {base}, {distance}"
        self.lines.append(Line(text, side=True, base=base, moves=True))

    def constant(self, bits: int) -> int:
        """32 bits in every lane."""
        low = self._general(f"mov {{0:w}}, {bits & 0xFFFF}")
        full = self.change(f"movk {{0:w}}, {bits >> 16}, lsl 16", low, side=True)
        self.general.add(full)
        return self.make("dup {0}.4s, {1:w}", full)

    def spread(self, base: str, offset: int, lanes: str) -> int:
        """32 bits from memory, or their low byte, in every one of the lanes, as in `4s`."""
        found = self._general(f"ldr {{0:w}}, [{base}, {offset}]", base)
        return self.make(f"dup {{0}}.{lanes}, {{1:w}}", found)

    def _into_lane(self, text: str, place: str, base: str) -> int:
        return self.make(text, self._carrier(place, base), side=True)

    def _carrier(self, place: str, base: str) -> int:
        return self._general(f"ldr {{0}}, {place}", base)

    def _general(self, text: str, base: str = "") -> int:
        found = self.make(text, side=True, base=base)
        self.general.add(found)
        return found

    def program(self, given: Mapping[int, str] | None = None) -> list[str]:
        """The text.

        Args:
            given: registers of values that are there already.

        Raises:
            RuntimeError: the values do not fit in the registers.
        """
        given = given or {}
        order = self.lines
        if self.loads != "whole":
            found = [_Scheduler(self, given, steep=steep) for steep in (False, True)]
            order = min((each.run() for each in found), key=lambda run: run[0])[1]
        return _allocate(self, order, given)


class _Name:
    """A register's name as the format in an instruction asks: {0} v7, {0:q} q7, {0:w} w7."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __format__(self, form: str) -> str:
        return (form or self._name[0]) + self._name[1:]


def _allocate(code: Code, order: Sequence[Line], given: Mapping[int, str]) -> list[str]:
    left = Counter(value for line in order for value in line.reads)
    places = dict(given)
    free = [name for name in VECTORS if name not in places.values()]
    carriers = list(code.carriers)
    found = []
    for line in order:
        names = [places[value] for value in line.reads]
        for value in line.reads:
            left[value] -= 1
        if line.tied:
            assert line.writes is not None
            if left[line.reads[0]]:
                raise RuntimeError(f"{line.text}: its first operand is read later")
            places[line.writes] = names[0]
        for value in dict.fromkeys(line.reads[1 if line.tied else 0 :]):
            if not left[value]:
                (carriers if value in code.general else free).append(places[value])
        if line.writes is not None and not line.tied:
            pool = carriers if line.writes in code.general else free
            if not pool:
                raise RuntimeError(f"{line.text}: no register is free")
            places[line.writes] = pool.pop(0)
            names.insert(0, places[line.writes])
        found.append(line.text.format(*map(_Name, names)))
        if line.writes is not None and not left[line.writes]:
            (carriers if line.writes in code.general else free).append(places[line.writes])
    return found


class _Registers:
    """Which values are alive, so that instructions that overtake others leave room for those."""

    def __init__(self, code: Code, given: Mapping[int, str]) -> None:
        self._code = code
        self._left = Counter(value for line in code.lines for value in line.reads)
        self._live = {False: sum(self._left[value] > 0 for value in given), True: 0}

    def _change(self, line: Line, read: Counter[int]) -> dict[bool, int]:
        """How many more values of each kind are alive behind a line, and note what it reads."""
        change = {False: 0, True: 0}
        for value in line.reads:
            read[value] += 1
            if read[value] == self._left[value]:
                change[value in self._code.general] -= 1
        if line.writes is not None and self._left[line.writes]:
            change[line.writes in self._code.general] += 1
        return change

    def allow(self, at: int, waiting: Sequence[int]) -> bool:
        """Whether the line `at` may go before the older ones that wait."""
        read: Counter[int] = Counter()
        change = self._change(self._code.lines[at], read)
        if max(change.values()) <= 0:
            return True
        live = {kind: self._live[kind] + change[kind] for kind in change}
        for older in waiting:
            if live[False] > len(VECTORS) or live[True] > len(self._code.carriers):
                return False
            if older == at:
                return True
            step = self._change(self._code.lines[older], read)
            live = {kind: live[kind] + step[kind] for kind in live}
        return True

    def others_read(self, line: Line) -> bool:
        """Whether lines that wait read what this one overwrites."""
        return line.tied and self._left[line.reads[0]] > line.reads.count(line.reads[0])

    def take(self, at: int) -> None:
        """The line has gone."""
        line = self._code.lines[at]
        for kind, number in self._change(line, Counter()).items():
            self._live[kind] += number
        self._left.subtract(line.reads)


class _Scheduler:
    """Issues two lines a cycle: the oldest that can go first, or the one with most behind it."""

    def __init__(self, code: Code, given: Mapping[int, str], *, steep: bool) -> None:
        self._lines = code.lines
        self._registers = _Registers(code, given)
        self._ready = dict.fromkeys(given, 0)
        self._waiting = list(range(len(code.lines)))
        self._users = Counter(line.base for line in code.lines if line.base)
        self._height = _heights(code.lines) if steep else None

    def run(self) -> tuple[int, list[Line]]:
        """Cycles, and all lines in their new order."""
        order: list[Line] = []
        cycle = 0
        while self._waiting:
            first = self._pick(cycle, side=False) or self._pick(cycle, side=True)
            if first is not None:
                loads = first.is_load
                second = self._pick(cycle, side=True, loads=not loads)
                order += [line for line in (first, second) if line is not None]
            cycle += 1
        return cycle, order

    def _pick(self, cycle: int, *, side: bool, loads: bool = True) -> Line | None:
        window = self._waiting[:_WINDOW]
        if self._height is not None:
            window.sort(key=self._height.__getitem__, reverse=True)
        for at in window:
            line = self._lines[at]
            fits = line.side == side and (loads or not line.is_load)
            if not fits or not self._can_go(line, cycle):
                continue
            if self._registers.others_read(line) or not self._registers.allow(at, self._waiting):
                continue
            self._waiting.remove(at)
            self._registers.take(at)
            self._users[line.base] -= 1
            if line.writes is not None:
                self._ready[line.writes] = cycle + line.latency
            return line
        return None

    def _can_go(self, line: Line, cycle: int) -> bool:
        if line.moves and self._users[line.base] > 1:
            return False
        late = 1 if line.text.startswith("ins") else 0
        return all(self._ready.get(value, cycle + 9) - late <= cycle for value in line.reads)


def _heights(lines: Sequence[Line]) -> list[int]:
    """Cycles from each line to the end of what depends on it."""
    below: dict[int, int] = {}
    found = []
    for line in reversed(lines):
        height = line.latency + (below.get(line.writes, 0) if line.writes is not None else 0)
        for value in line.reads:
            below[value] = max(below.get(value, 0), height)
        found.append(height)
    return found[::-1]
