"""The inner loops of the matrix kernels, as LLVM IR around one block of AArch64 assembly.

A tile is [rows, columns] sums over all input channels. Its loop is written in the order in which
it shall run, since LLVM's models of in-order cores do not find a good one: while a 128-bit vector
instruction takes a cycle's first slot, a load of the next step's operands goes beside it. The
first step begins the sums, the last one loads nothing, so no byte behind an operand is read.

Registers: v16-v31 hold sums, v0-v15 operands and products; x0-x7 point to rows of x, x8 to the
weights, x9 to the sums' start values, x10-x14 and x20-x22 (`neon`: x25) carry halves of operands,
x15 and x16 are offsets into the rows, x17 counts steps and x30 tiles. Immediates have no number
sign, since `module.py` renumbers what looks like an attribute group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from mfn_compile.arm.kernels.knobs import Loads

Isa = Literal["dotprod", "neon", "i8mm"]
DEEP = 16  # input channels of one step: one 128-bit register of int8
ROWS: dict[Isa, int] = {"dotprod": 8, "neon": 4, "i8mm": 8}
COLUMNS: dict[Isa, int] = {"dotprod": 8, "neon": 4, "i8mm": 8}

WEIGHTS, START, _COUNT, TILES = "x8", "x9", "x17", "x30"
_OFFSETS = ("x16", "x15")  # of the first and the second half of a row's 16 bytes
_CARRIERS: dict[Isa, tuple[str, ...]] = {
    "dotprod": tuple(f"x{i}" for i in (*range(10, 15), *range(20, 23))),
    "neon": tuple(f"x{i}" for i in (*range(10, 15), *range(20, 26))),
    "i8mm": tuple(f"x{i}" for i in (*range(11, 15), *range(20, 23))),  # of `matrix.py`
}
_LANE_TO_LANE = 2  # slots until `ins` can follow another one


@dataclass(frozen=True)
class Tile:
    """A tile's size and form.

    Attributes:
        rows: of x, at most `ROWS[isa]`.
        k: input channels, a multiple of 16.
        paired: two products are added in 16 bits (`neon` only; see `gemm.pairs_fit`).
        loads: see `Knobs`.
        partial: the sums of `neon` stay four partial ones a channel, one a lane.
        late, gap: see `Knobs`.
    """

    isa: Isa
    rows: int
    k: int
    paired: bool
    loads: Loads
    partial: bool = False
    late: bool = True
    gap: int = 3

    @property
    def name(self) -> str:
        """Symbol of its function."""
        form = "" if self.isa != "neon" else "_paired" if self.paired else "_single"
        form += "_partial" if self.partial else ""
        form += f"_{self.loads}{self.gap}" + ("" if self.late else "_early")
        return f"mfn_tile_{self.isa}_{self.rows}x{self.k}{form}"

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

    A `late` one is loaded in the step that reads it, the others in the step before. The `first`
    ones of a row lie where its pointer points to.
    """

    register: int
    base: str
    offset: int
    late: bool = False
    first: bool = False


@cache
def tile_ir(tile: Tile) -> str:
    """LLVM IR of `void name(x, weights, start, sums)`, to be inlined.

    x: int8, rows `k` bytes apart. weights: packed for the tile. start: int32 [columns] that
    `dotprod` begins the sums with. sums: int32 [rows, columns].
    """
    return sums_ir(tile, program(tile), _results(tile))


def sums_ir(tile: Tile, lines: Sequence[str], sums: Sequence[int]) -> str:
    """The function of `tile_ir` around its instructions; `sums` are registers, row by row."""
    body = row_pointers(tile)
    kinds = ["<4 x i32>"] * len(sums)
    outputs = [f"={{v{r}}}" for r in sums]
    body.append(assembly(tile, lines, kinds, outputs, {}))
    for i in range(len(sums)):
        body += [
            f"  %v{i} = extractvalue {shape_of(tile, kinds)} %r, {i}",
            f"  %p{i} = getelementptr i8, ptr %sums, i64 {16 * i}",
            f"  store <4 x i32> %v{i}, ptr %p{i}, align 4",
        ]
    head = f"define linkonce_odr void @{tile.name}(ptr %x, ptr %w, ptr %start, ptr %sums)"
    return "\n".join([f"{head} alwaysinline nounwind {{", *body, "  ret void", "}", ""])


def row_pointers(tile: Tile) -> list[str]:
    """LLVM IR that computes %x0, %x1 and so on from %x."""
    return [f"  %x{i} = getelementptr i8, ptr %x, i64 {i * tile.k}" for i in range(tile.rows)]


def shape_of(tile: Tile, kinds: Sequence[str]) -> str:
    """Type of what the assembly returns: other results and the pointers, which it moves."""
    return "{ " + ", ".join([*kinds, *["ptr"] * (tile.rows + 2)]) + " }"


def assembly(
    tile: Tile,
    lines: Sequence[str],
    kinds: Sequence[str],
    outputs: Sequence[str],
    others: Mapping[str, str],
) -> str:
    """LLVM IR that runs a tile's instructions on %x0 and so on, %w and %start.

    Args:
        kinds, outputs: types and constraints of results in front of the pointers.
        others: registers of more pointers, and their values.
    """
    pointers = [*(f"x{i}" for i in range(tile.rows)), WEIGHTS, START, *others]
    places = [*(f"%x{i}" for i in range(tile.rows)), "%w", "%start", *others.values()]
    clobbers = [f"~{{v{r}}}" for r in range(32) if f"={{v{r}}}" not in outputs]
    clobbers += [f"~{{{r}}}" for r in (*_CARRIERS[tile.isa], *_OFFSETS, _COUNT)]
    clobbers.append("~{lr}")  # LLVM's name of x30; it takes no other
    constraints = [
        *outputs,
        *(f"={{{pointer}}}" for pointer in pointers),
        *(str(len(outputs) + i) for i in range(len(pointers))),
        *clobbers,
        "~{cc}",
        "~{memory}",
    ]
    text, listed = "\\0A".join(lines), ",".join(constraints)
    arguments = ", ".join(f"ptr {place}" for place in places)
    # Copies in unrolled loops would only be larger.
    shape = shape_of(tile, [*kinds, *["ptr"] * len(others)])
    return f'  %r = call {shape} asm sideeffect "{text}", "{listed}"({arguments}) noduplicate'


def _results(tile: Tile) -> list[int]:
    """Registers of the sums in the order of [rows, columns]."""
    if tile.isa == "neon" and not tile.partial:
        return _reduced(tile)
    return [16 + i for i in range(tile.rows * (2 if tile.isa == "dotprod" else 4))]


def _reduced(tile: Tile) -> list[int]:
    return [16 + 4 * i for i in range(tile.rows)]


def program(tile: Tile, *, last: bool = True) -> list[str]:
    """The instructions; without the last step, if there are others, where it is not wanted."""
    steps = tile.k // DEEP
    lines = _body(tile, 0, first=True, last=steps == 1)
    middle = max(steps - 2, 0)
    if middle in (2, 3):
        lines += [*_body(tile, 1), *_body(tile, 0)]
    elif middle > 3:
        lines += [f"mov {_COUNT}, {middle // 2}", "1:", f"subs {_COUNT}, {_COUNT}, 1"]
        lines += [*_body(tile, 1), *_body(tile, 0), "b.ne 1b"]
    if middle % 2:
        lines += _body(tile, 1)
    if steps > 1 and last:
        lines += _body(tile, (steps - 1) % 2, last=True)
    return lines + (_reduction(tile) if last else [])


def last_step(tile: Tile) -> tuple[list[tuple[str, tuple[int, ...]]], list[_Operand]]:
    """Of a tile of several steps, what `program` leaves out: instructions with the operand
    registers that they read, and the operands, of which the late ones are not loaded yet.
    """
    parity = (tile.k // DEEP - 1) % 2
    steps = [(step.text, step.uses) for step in _arithmetic(tile, parity, first=False)]
    return steps, _operands(tile, parity)


def _advance(tile: Tile, *, first: bool) -> list[str]:
    """To the next step's operands."""
    offsets = _OFFSETS[: 1 if tile.loads == "whole" else 2]
    weights = DEEP * tile.columns
    if first:
        lines = [f"mov {offset}, {DEEP + 8 * half}" for half, offset in enumerate(offsets)]
    else:
        lines = [f"add {offset}, {offset}, {DEEP}" for offset in offsets]
    return [*lines, f"add {WEIGHTS}, {WEIGHTS}, {weights}"]


def _row(tile: Tile, i: int, parity: int) -> int:
    """Register of a row; `neon` has room for those of two steps, odd and even."""
    return i + 12 * parity if tile.isa == "neon" else i


def _operands(tile: Tile, parity: int) -> list[_Operand]:
    """Registers that a step reads, in the order in which it reads them first."""
    full = tile.late and tile.rows == ROWS[tile.isa]  # small tiles have no time for late loads
    rows = [_Operand(_row(tile, i, parity), f"x{i}", 0) for i in range(tile.rows)]
    if tile.isa == "dotprod":
        weights = [_Operand(8 + i, WEIGHTS, 16 * i, late=full and i >= 4) for i in range(8)]
        return [weights[0], rows[0], weights[1], *rows[1:], *weights[2:]]
    weights = [_Operand(4 + i, WEIGHTS, 16 * i, late=full and i >= 3) for i in range(4)]
    return [weights[0], *rows, *weights[1:]]


def _start(tile: Tile) -> list[str]:
    """The first values of the sums of `dotprod`; `neon` has none, its first step begins them.

    A load of 128 bits leaves the vector units to others, except in order.
    """
    if tile.isa == "neon":
        return []
    copies = range(2, 2 * tile.rows)
    if tile.loads == "whole":
        return [f"ldr q{16 + i}, [{START}, {16 * (i % 2)}]" for i in (0, 1, *copies)]
    loads = [f"ldr q16, [{START}]", f"ldr q17, [{START}, 16]"]
    return loads + [f"mov v{16 + i}.16b, v{16 + i % 2}.16b" for i in copies]


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
    if tile.isa == "dotprod" or tile.partial:
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
    if first:
        steps = [*map(_Step, _start(tile)), *steps]
    free = {r: at for at, step in enumerate(steps) for r in step.uses}
    back = DEEP * tile.columns
    late = [
        replace(o, offset=o.offset - back, first=first)
        for o in _operands(tile, parity)
        if o.late or first
    ]
    following = [] if last else [o for o in _operands(tile, 1 - parity) if not o.late]
    following.sort(key=lambda o: (free.get(o.register, -1), o.offset))
    if first:
        loaders = [_Loader(late, {}, tile, whole=True), _Loader(following, free, tile)]
    else:
        free |= {o.register: -1 for o in late}
        loaders = [_Loader([*late, *following], free, tile)]
    return _advance(tile, first=first) + _interleave(steps, loaders, wait=first)


class _Loader:
    """Hands out the loads of operands one by one, each as soon as its register is free.

    Args:
        whole: both halves of an operand come before the next operand.
    """

    def __init__(
        self,
        order: Sequence[_Operand],
        free: Mapping[int, int],
        tile: Tile,
        *,
        whole: bool = False,
    ) -> None:
        loads = tile.loads
        self._free, self._whole, self._gap = free, whole, tile.gap
        halves = {"whole": (), "halves": (1,), "general": (0, 1)}[loads]
        self._plain = [] if loads == "general" else list(order)
        self._size = "q" if loads == "whole" else "d"
        self._early = [(operand, half) for operand in order for half in halves]
        self._lanes: list[tuple[int, str, str, int]] = []
        self._carriers = list(_CARRIERS[tile.isa])
        self._missing = Counter(o.register for o in self._plain)
        self._missing.update(o.register for o, _ in self._early)
        self._ready: dict[int, int] = {}  # slot from which a register can be read
        self._settled: dict[int, int] = {}  # slot from which a register's other half can follow

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not (self._plain or self._early or self._lanes)

    def lacks(self, registers: Sequence[int], slot: int) -> bool:
        """Whether one of them cannot be read yet."""
        return any(self._ready.get(register, slot + 1) > slot for register in registers)

    def take(self, slot: int, done: int) -> str | None:
        """The next instruction for this slot, if one can go behind arithmetic up to `done`."""
        for at, (ready, text, carrier, register) in enumerate(self._lanes):
            begun = all(o.register != register for o in self._plain)  # `ldr d` clears the rest
            settled = max(ready, self._settled.get(register, 0)) <= slot
            if begun and settled and self._is_free(register, done):
                del self._lanes[at]
                self._carriers.append(carrier)
                self._settled[register] = slot + _LANE_TO_LANE
                self._arrive(register, slot + _LANE_TO_LANE)
                return text
        first = not (self._whole and len(self._early) > len(self._plain))
        if self._plain and first and self._is_free(self._plain[0].register, done):
            operand = self._plain.pop(0)
            self._settled[operand.register] = slot + self._gap
            self._arrive(operand.register, slot + (1 if self._size == "q" else self._gap))
            return f"ldr {self._size}{operand.register}, {_place(operand)}"
        if self._early and self._carriers:
            operand, half = self._early.pop(0)
            carrier = self._carriers.pop(0)
            text = f"ins v{operand.register}.d[{half}], {carrier}"
            self._lanes.append((slot + self._gap, text, carrier, operand.register))
            return f"ldr {carrier}, {_place(operand, half)}"
        return None

    def _arrive(self, register: int, slot: int) -> None:
        self._missing[register] -= 1
        if not self._missing[register]:
            self._ready[register] = slot

    def _is_free(self, register: int, done: int) -> bool:
        return self._free.get(register, -1) <= done


def _place(operand: _Operand, half: int = 0) -> str:
    """Address of 16 bytes of an operand, or of its second half."""
    if operand.base != WEIGHTS and operand.first:
        return f"[{operand.base}, {8 * half}]"
    if operand.base == WEIGHTS:
        return f"[{WEIGHTS}, {operand.offset + 8 * half}]"
    return f"[{operand.base}, {_OFFSETS[half]}]"


def _interleave(steps: Sequence[_Step], loaders: Sequence[_Loader], *, wait: bool) -> list[str]:
    """One load behind each instruction of arithmetic; then what is left.

    Args:
        loaders: one after the other.
        wait: whether arithmetic waits for what the first of them loads.
    """
    found: list[str] = []
    done = slot = 0
    while done < len(steps) or not all(loader.done for loader in loaders):
        if done < len(steps) and not (wait and loaders[0].lacks(steps[done].uses, slot)):
            found.append(steps[done].text)
            done += 1
        loader = next((loader for loader in loaders if not loader.done), loaders[-1])
        load = loader.take(slot, done - 1)
        found += [load] if load else []
        slot += 1
    return found
