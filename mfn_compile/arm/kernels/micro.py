"""The inner loops of the matrix kernels, as LLVM IR around one block of AArch64 assembly.

A tile is [rows, columns] sums over all input channels. Its loop is written in the order in which
it shall run, since LLVM's models of in-order cores do not find a good one: while a 128-bit vector
instruction takes a cycle's first slot, a load of the next step's operands goes beside it. The
first step begins the sums, the last one loads nothing, so no byte behind an operand is read.

Registers: v16-v31 hold sums, v0-v15 operands and products; x0-x7 point to rows of x, x8 to the
weights, x9 to the sums' start values, x10-x14 and x20-x25 carry halves of operands, x15 and x16
are offsets into the rows, x17 counts. Immediates have no number sign, since `module.py` renumbers
what looks like an attribute group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from mfn_compile.arm.kernels.knobs import Loads

Isa = Literal["dotprod", "neon"]
DEEP = 16  # input channels of one step: one 128-bit register of int8
ROWS: dict[Isa, int] = {"dotprod": 8, "neon": 4}
COLUMNS: dict[Isa, int] = {"dotprod": 8, "neon": 4}

_WEIGHTS, _START, _COUNT = "x8", "x9", "x17"
_OFFSETS = ("x16", "x15")  # of the first and the second half of a row's 16 bytes
_CARRIERS = tuple(f"x{i}" for i in (*range(10, 15), *range(20, 26)))
_LOAD_TO_LANE, _LANE_TO_LANE = 3, 2  # slots until `ins` can follow a load, and another `ins`


@dataclass(frozen=True)
class Tile:
    """A tile's size and form.

    Attributes:
        rows: of x, at most `ROWS[isa]`.
        k: input channels, a multiple of 16.
        paired: two products are added in 16 bits (`neon` only; see `gemm.pairs_fit`).
        loads: see `Knobs`.
    """

    isa: Isa
    rows: int
    k: int
    paired: bool
    loads: Loads

    @property
    def name(self) -> str:
        """Symbol of its function."""
        form = "" if self.isa == "dotprod" else "_paired" if self.paired else "_single"
        return f"mfn_tile_{self.isa}_{self.rows}x{self.k}{form}_{self.loads}"

    @property
    def columns(self) -> int:
        """Output channels."""
        return COLUMNS[self.isa]


@dataclass(frozen=True)
class _Step:
    """One instruction of arithmetic and the operand registers that it reads."""

    text: str
    uses: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Operand:
    """A register that every step loads: 16 bytes at `offset` from where `base` points to.

    A `late` one is loaded in the step that reads it, the others in the step before.
    """

    register: int
    base: str
    offset: int
    late: bool = False


@cache
def tile_ir(tile: Tile) -> str:
    """LLVM IR of `void name(x, weights, start, sums)`, to be inlined.

    x: int8, rows `k` bytes apart. weights: packed for the tile. start: int32 [columns] that
    `dotprod` begins the sums with. sums: int32 [rows, columns].
    """
    lines = _program(tile)
    sums = _results(tile)
    kinds = ["<4 x i32>"] * len(sums) + ["ptr"] * (tile.rows + 2)
    pointers = [*(f"x{i}" for i in range(tile.rows)), _WEIGHTS, _START]
    held = {*sums}
    outputs = [f"={{v{r}}}" for r in sums] + [f"={{{p}}}" for p in pointers]
    ties = [str(len(sums) + i) for i in range(len(pointers))]
    clobbers = [f"~{{v{r}}}" for r in range(32) if r not in held]
    clobbers += [f"~{{{r}}}" for r in (*_CARRIERS, *_OFFSETS, _COUNT)] + ["~{cc}", "~{memory}"]
    rows = [f"%x{i}" for i in range(tile.rows)]
    body = [f"  {row} = getelementptr i8, ptr %x, i64 {i * tile.k}" for i, row in enumerate(rows)]
    arguments = ", ".join(f"ptr {p}" for p in (*rows, "%w", "%start"))
    text = "\\0A".join(lines)
    shape = "{ " + ", ".join(kinds) + " }"
    constraints = ",".join([*outputs, *ties, *clobbers])
    body += [f'  %r = call {shape} asm sideeffect "{text}", "{constraints}"({arguments})']
    for i in range(len(sums)):
        body += [
            f"  %v{i} = extractvalue {shape} %r, {i}",
            f"  %p{i} = getelementptr i8, ptr %sums, i64 {16 * i}",
            f"  store <4 x i32> %v{i}, ptr %p{i}, align 4",
        ]
    head = f"define linkonce_odr void @{tile.name}(ptr %x, ptr %w, ptr %start, ptr %sums)"
    return "\n".join([f"{head} alwaysinline nounwind {{", *body, "  ret void", "}", ""])


def _results(tile: Tile) -> list[int]:
    """Registers of the sums in the order of [rows, columns]."""
    return [16 + i for i in range(tile.rows * 2)] if tile.isa == "dotprod" else _reduced(tile)


def _reduced(tile: Tile) -> list[int]:
    return [16 + 4 * i for i in range(tile.rows)]


def _program(tile: Tile) -> list[str]:
    steps = tile.k // DEEP
    lines = [f"mov {_OFFSETS[0]}, 0", f"mov {_OFFSETS[1]}, 8"]
    begin = [operand for operand in _operands(tile, 0) if not operand.late]
    lines += _interleave(_start(tile), _Loader(begin, {}, tile.loads))
    lines += _body(tile, 0, first=True, last=steps == 1)
    middle = max(steps - 2, 0)
    if middle > 1:
        lines += [f"mov {_COUNT}, {middle // 2}", "1:", f"subs {_COUNT}, {_COUNT}, 1"]
        lines += [*_body(tile, 1), *_body(tile, 0), "b.ne 1b"]
    if middle % 2:
        lines += _body(tile, 1)
    if steps > 1:
        lines += _body(tile, (steps - 1) % 2, last=True)
    return lines + _reduction(tile)


def _advance(tile: Tile) -> list[str]:
    """To the next step's operands."""
    offsets = _OFFSETS[: 1 if tile.loads == "whole" else 2]
    weights = DEEP * tile.columns
    lines = [f"add {offset}, {offset}, {DEEP}" for offset in offsets]
    return [*lines, f"add {_WEIGHTS}, {_WEIGHTS}, {weights}"]


def _row(tile: Tile, i: int, parity: int) -> int:
    """Register of a row; `neon` has room for those of two steps, odd and even."""
    return i + 12 * parity if tile.isa == "neon" else i


def _operands(tile: Tile, parity: int) -> list[_Operand]:
    """Registers that a step reads, in the order in which it reads them first."""
    full = tile.rows == ROWS[tile.isa]  # small tiles have no time for late loads
    rows = [_Operand(_row(tile, i, parity), f"x{i}", 0) for i in range(tile.rows)]
    if tile.isa == "dotprod":
        weights = [_Operand(8 + i, _WEIGHTS, 16 * i, late=full and i >= 4) for i in range(8)]
        return [weights[0], rows[0], weights[1], *rows[1:], *weights[2:]]
    weights = [_Operand(4 + i, _WEIGHTS, 16 * i, late=full and i >= 3) for i in range(4)]
    return [weights[0], *rows, *weights[1:]]


def _start(tile: Tile) -> list[str]:
    """The first values of the sums of `dotprod`; `neon` has none, its first step begins them."""
    if tile.isa == "neon":
        return []
    loads = [f"ldr q16, [{_START}]", f"ldr q17, [{_START}, 16]"]
    moves = [f"mov v{16 + i}.16b, v{16 + i % 2}.16b" for i in range(2, 2 * tile.rows)]
    return loads + moves


def _arithmetic(tile: Tile, parity: int, first: bool) -> list[_Step]:
    """One step's instructions."""
    if tile.isa == "dotprod":
        return [
            _Step(
                f"sdot v{16 + 2 * i + half}.4s, v{8 + 2 * lane + half}.16b, v{i}.4b[{lane}]",
                (i, 8 + 2 * lane + half),
            )
            for lane in range(4)
            for i in range(tile.rows)
            for half in range(2)
        ]
    pairs = [(_row(tile, i, parity), i, j) for j in range(4) for i in range(tile.rows)]
    groups = [pairs[at : at + 4] for at in range(0, len(pairs), 4)]
    form = _paired if tile.paired else _single
    return [step for group in groups for step in form(group, first)]


def _paired(group: Sequence[tuple[int, int, int]], first: bool) -> list[_Step]:
    """Products of four sums side by side, so that none waits for its partner."""
    both = [(8 + at, *place) for at, place in enumerate(group)]
    low = [_Step(f"smull v{t}.8h, v{a}.8b, v{4 + j}.8b", (a, 4 + j)) for t, a, _, j in both]
    high = [_Step(f"smlal2 v{t}.8h, v{a}.16b, v{4 + j}.16b", (a, 4 + j)) for t, a, _, j in both]
    add = "saddlp" if first else "sadalp"
    return low + high + [_Step(f"{add} v{16 + 4 * i + j}.4s, v{t}.8h") for t, _, i, j in both]


def _single(group: Sequence[tuple[int, int, int]], first: bool) -> list[_Step]:
    """Every product is widened by itself."""
    both = [(8 + at, *place) for at, place in enumerate(group)]
    found = []
    for multiply, part in (("smull", "8b"), ("smull2", "16b")):
        add = "saddlp" if first and part == "8b" else "sadalp"
        found += [
            _Step(f"{multiply} v{t}.8h, v{a}.{part}, v{4 + j}.{part}", (a, 4 + j))
            for t, a, _, j in both
        ]
        found += [_Step(f"{add} v{16 + 4 * i + j}.4s, v{t}.8h") for t, _, i, j in both]
    return found


def _reduction(tile: Tile) -> list[str]:
    """Four partial sums a channel to one, `neon` only: row i ends in v(16 + 4 i)."""
    if tile.isa == "dotprod":
        return []
    first = [(16 + 4 * i + j) for i in range(tile.rows) for j in (0, 2)]
    lines = [f"addp v{r}.4s, v{r}.4s, v{r + 1}.4s" for r in first]
    return lines + [f"addp v{r}.4s, v{r}.4s, v{r + 2}.4s" for r in _reduced(tile)]


def _body(tile: Tile, parity: int, *, first: bool = False, last: bool = False) -> list[str]:
    """One step; beside its arithmetic operands are loaded: the late ones of its own, and the
    others of the next step, if there is one.

    A register is loaded once the last instruction that reads it has gone. The pointers are one
    step ahead, so the late ones lie behind them.
    """
    steps = _arithmetic(tile, parity, first)
    free = {r: at for at, step in enumerate(steps) for r in step.uses}
    back = DEEP * tile.columns
    late = [replace(o, offset=o.offset - back) for o in _operands(tile, parity) if o.late]
    following = [] if last else [o for o in _operands(tile, 1 - parity) if not o.late]
    following.sort(key=lambda o: (free.get(o.register, -1), o.offset))
    free |= {o.register: -1 for o in late}
    loader = _Loader([*late, *following], free, tile.loads)
    return _advance(tile) + _interleave([step.text for step in steps], loader)


class _Loader:
    """Hands out the loads of operands one by one, each as soon as its register is free."""

    def __init__(self, order: Sequence[_Operand], free: Mapping[int, int], loads: Loads) -> None:
        self._free = free
        halves = {"whole": (), "halves": (1,), "general": (0, 1)}[loads]
        self._plain = [] if loads == "general" else list(order)
        self._size = "q" if loads == "whole" else "d"
        self._early = [(operand, half) for operand in order for half in halves]
        self._lanes: list[tuple[int, str, str, int]] = []
        self._carriers = list(_CARRIERS)
        self._settled: dict[int, int] = {}  # slot from which a register's other half can follow

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not (self._plain or self._early or self._lanes)

    def take(self, slot: int) -> str | None:
        """The next instruction for this slot, if one can go."""
        for at, (ready, text, carrier, register) in enumerate(self._lanes):
            begun = all(o.register != register for o in self._plain)  # `ldr d` clears the rest
            settled = max(ready, self._settled.get(register, 0)) <= slot
            if begun and settled and self._is_free(register, slot):
                del self._lanes[at]
                self._carriers.append(carrier)
                self._settled[register] = slot + _LANE_TO_LANE
                return text
        if self._plain and self._is_free(self._plain[0].register, slot):
            operand = self._plain.pop(0)
            self._settled[operand.register] = slot + _LOAD_TO_LANE
            return f"ldr {self._size}{operand.register}, {_place(operand)}"
        if self._early and self._carriers:
            operand, half = self._early.pop(0)
            carrier = self._carriers.pop(0)
            text = f"ins v{operand.register}.d[{half}], {carrier}"
            self._lanes.append((slot + _LOAD_TO_LANE, text, carrier, operand.register))
            return f"ldr {carrier}, {_place(operand, half)}"
        return None

    def _is_free(self, register: int, slot: int) -> bool:
        return self._free.get(register, -1) <= slot


def _place(operand: _Operand, half: int = 0) -> str:
    """Address of 16 bytes of an operand, or of its second half."""
    if operand.base == _WEIGHTS:
        return f"[{_WEIGHTS}, {operand.offset + 8 * half}]"
    return f"[{operand.base}, {_OFFSETS[half]}]"


def _interleave(steps: Sequence[str], loader: _Loader) -> list[str]:
    """One load behind each instruction of arithmetic; then what is left."""
    found: list[str] = []
    slot = 0
    while slot < len(steps) or not loader.done:
        found += [steps[slot]] if slot < len(steps) else []
        load = loader.take(slot)
        found += [load] if load else []
        slot += 1
    return found
