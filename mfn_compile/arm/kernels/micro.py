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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from mfn_compile.arm.kernels.knobs import Loads
from mfn_compile.arm.kernels.operands import OFFSETS, WEIGHTS, Loader, Operand, Step, interleave

Isa = Literal["dotprod", "neon", "i8mm"]
Line = tuple[str, tuple[int, ...]]  # arithmetic, and the registers of operands that it reads
DEEP = 16  # input channels of one step: one 128-bit register of int8
ROWS: dict[Isa, int] = {"dotprod": 8, "neon": 4, "i8mm": 8}
COLUMNS: dict[Isa, int] = {"dotprod": 8, "neon": 4, "i8mm": 8}

START, COUNT, TILES = "x9", "x17", "x30"
CARRIERS: dict[Isa, tuple[str, ...]] = {
    "dotprod": tuple(f"x{i}" for i in (*range(10, 15), *range(20, 23))),
    "neon": tuple(f"x{i}" for i in (*range(10, 15), *range(20, 26))),
    "i8mm": tuple(f"x{i}" for i in (*range(11, 15), *range(20, 23))),  # of `matrix.py`
}


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
        fours: four products are added in 16 bits (see `fours.py`).
    """

    isa: Isa
    rows: int
    k: int
    paired: bool
    loads: Loads
    partial: bool = False
    late: bool = True
    gap: int = 3
    fours: bool = False

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
    clobbers += [f"~{{{r}}}" for r in (*CARRIERS[tile.isa], *OFFSETS[:2], COUNT)]
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
        lines += [f"mov {COUNT}, {middle // 2}", "1:", f"subs {COUNT}, {COUNT}, 1"]
        lines += [*_body(tile, 1), *_body(tile, 0), "b.ne 1b"]
    if middle % 2:
        lines += _body(tile, 1)
    if steps > 1 and last:
        lines += _body(tile, (steps - 1) % 2, last=True)
    return lines + (_reduction(tile) if last else [])


def last_step(tile: Tile) -> list[Step]:
    """Of a tile of several steps, what `program` leaves out; late operands are not loaded yet."""
    parity = (tile.k // DEEP - 1) % 2
    by = {operand.register: operand for operand in operands(tile, parity)}
    return [
        Step(text, tuple(by[register] for register in uses))
        for text, uses in arithmetic(tile, parity, first=False)
    ]


def _advance(tile: Tile, *, first: bool) -> list[str]:
    """To the next step's operands."""
    offsets = OFFSETS[: 1 if tile.loads == "whole" else 2]
    weights = DEEP * tile.columns
    if first:
        lines = [f"mov {offset}, {DEEP + 8 * half}" for half, offset in enumerate(offsets)]
    else:
        lines = [f"add {offset}, {offset}, {DEEP}" for offset in offsets]
    return [*lines, f"add {WEIGHTS}, {WEIGHTS}, {weights}"]


def _row(tile: Tile, i: int, parity: int) -> int:
    """Register of a row; `neon` has room for those of two steps, odd and even."""
    return i + 12 * parity if tile.isa == "neon" else i


def operands(tile: Tile, parity: int) -> list[Operand]:
    """Registers that a step reads, in the order in which it reads them first."""
    full = tile.late and tile.rows == ROWS[tile.isa]  # small tiles have no time for late loads
    rows = [Operand(_row(tile, i, parity), f"x{i}", 0) for i in range(tile.rows)]
    if tile.isa == "dotprod":
        weights = [Operand(8 + i, WEIGHTS, 16 * i, late=full and i >= 4) for i in range(8)]
        return [weights[0], rows[0], weights[1], *rows[1:], *weights[2:]]
    weights = [Operand(4 + i, WEIGHTS, 16 * i, late=full and i >= 3) for i in range(4)]
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


def arithmetic(tile: Tile, parity: int, first: bool) -> list[Line]:
    """One step's instructions."""
    if tile.isa == "dotprod":
        return [
            (
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


def _paired(group: Sequence[tuple[int, int, int]], first: bool) -> list[Line]:
    """Products of four sums side by side, so that none waits for its partner."""
    both = [(8 + at, *place) for at, place in enumerate(group)]
    low = [(f"smull v{t}.8h, v{a}.8b, v{4 + j}.8b", (a, 4 + j)) for t, a, _, j in both]
    high = [(f"smlal2 v{t}.8h, v{a}.16b, v{4 + j}.16b", (a, 4 + j)) for t, a, _, j in both]
    add = "saddlp" if first else "sadalp"
    return low + high + [(f"{add} v{16 + 4 * i + j}.4s, v{t}.8h", ()) for t, _, i, j in both]


def _single(group: Sequence[tuple[int, int, int]], first: bool) -> list[Line]:
    """Every product is widened by itself."""
    both = [(8 + at, *place) for at, place in enumerate(group)]
    found: list[Line] = []
    for multiply, part in (("smull", "8b"), ("smull2", "16b")):
        add = "saddlp" if first and part == "8b" else "sadalp"
        found += [
            (f"{multiply} v{t}.8h, v{a}.{part}, v{4 + j}.{part}", (a, 4 + j)) for t, a, _, j in both
        ]
        found += [(f"{add} v{16 + 4 * i + j}.4s, v{t}.8h", ()) for t, _, i, j in both]
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
    lines: list[Line] = arithmetic(tile, parity, first)
    if first:
        lines = [*((text, ()) for text in _start(tile)), *lines]
    back = DEEP * tile.columns
    late = [
        replace(o, offset=o.offset - (back if o.base == WEIGHTS else 0), first=first)
        for o in operands(tile, parity)
        if o.late or first
    ]
    following = [] if last else [o for o in operands(tile, 1 - parity) if not o.late]
    used = {register: at for at, (_, uses) in enumerate(lines) for register in uses}
    following.sort(key=lambda o: (used.get(o.register, -1), o.offset))
    free = {o: used.get(o.register, -1) for o in following}
    if not first:
        steps = [Step(text) for text, _ in lines]
        return _advance(tile, first=False) + interleave(
            steps, [_loader(tile, [*late, *following], free)]
        )
    by = {o.register: o for o in late}
    steps = [Step(text, tuple(by[register] for register in uses)) for text, uses in lines]
    loaders = [_loader(tile, late, {}, whole=True), _loader(tile, following, free)]
    return _advance(tile, first=True) + interleave(steps, loaders)


def _loader(
    tile: Tile, order: Sequence[Operand], free: Mapping[Operand, int], *, whole: bool = False
) -> Loader:
    """Of operands, as the tile's knobs have it."""
    carriers = CARRIERS[tile.isa]
    return Loader(order, free, loads=tile.loads, carriers=carriers, gap=tile.gap, whole=whole)
