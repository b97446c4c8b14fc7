"""Tiles of `micro.py` whose sums become bytes in memory: all columns of some rows.

The epilogue follows the last step of the tile's loop in one piece of straight code, so that what
it needs is loaded beside the last products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from mfn_compile.arm.kernels import fours, micro
from mfn_compile.arm.kernels.epilogue import Epilogue
from mfn_compile.arm.kernels.finishing import CHANNELS, Pointers, prepare
from mfn_compile.arm.kernels.operands import WEIGHTS, Step
from mfn_compile.arm.kernels.straight import Code

_FIRST = 16  # register of sums
_CARRIERS = ("x15", "x16", "x17", *(f"x{i}" for i in (*range(10, 15), *range(20, 23))))
_VECTOR = re.compile(r"v(\d+)")
_SUMMING = ("sdot", "smlal", "sadalp")  # instructions that add to their result
_ADDP = "addp {0}.4s, {1}.4s, {2}.4s"


@dataclass(frozen=True)
class Places:
    """Registers of the pointers behind the loop."""

    out: str
    constants: Pointers
    skip: str


_DOTS = Places("x26", Pointers("x27", "x28", "x24", "x23"), "x25")
PLACES: dict[micro.Isa, Places] = {
    "dotprod": _DOTS,
    "neon": Places("x4", Pointers("x5", "x6", "x26", "x27"), "x7"),
    "i8mm": _DOTS,
}


@dataclass(frozen=True)
class Ending:
    """A tile, and what happens to its sums; those of `neon` are partial ones without bias.

    Of the first `fours` channels, four products are added in 16 bits.
    """

    tile: micro.Tile
    epilogue: Epilogue
    fours: int = 0

    @property
    def name(self) -> str:
        """Symbol of its function."""
        fours = f"_fours{self.fours}" if self.fours else ""
        return f"{self.tile.name}{fours}_{self.epilogue.channels}_{self.epilogue.tag}"

    @property
    def registers(self) -> int:
        """How many hold sums."""
        return self.tile.rows * (2 if self.tile.isa == "dotprod" else 4)


@cache
def ending_ir(ending: Ending) -> str:
    """LLVM IR of `void name(x, weights, bias, out, shift, multiplier[, skip, scales, factor])`.

    x, weights, bias: see `micro.tile_ir`, for all columns. out, skip: int8, rows
    `epilogue.channels` bytes apart. The others: see `finishing.Pointers`.
    """
    return function_ir(ending, _program(ending))


def function_ir(
    ending: Ending, lines: Sequence[str], buffer: Mapping[str, int] | None = None
) -> str:
    """The function of `ending_ir` around a tile's instructions.

    Args:
        buffer: registers that point to memory of their own on the stack, and its bytes.
    """
    at = PLACES[ending.tile.isa]
    names = ["%out", "%shift", "%mul"]
    places = [at.out, at.constants.shift, at.constants.multiplier]
    if ending.epilogue.residual:
        names += ["%skip", "%scales", "%factor"]
        places += [at.skip, at.constants.scales, at.constants.factor]
    others = dict(zip(places, names, strict=True))
    rooms = [f"  %{name} = alloca [{n} x i8], align 64" for name, n in (buffer or {}).items()]
    others |= {name: f"%{name}" for name in buffer or {}}
    parameters = ", ".join(f"ptr {name}" for name in ("%x", "%w", "%start", *names))
    return "\n".join(
        [
            f"define linkonce_odr void @{ending.name}({parameters}) alwaysinline nounwind {{",
            *rooms,
            *micro.row_pointers(ending.tile),
            micro.assembly(ending.tile, lines, [], [], others),
            "  ret void",
            "}",
            "",
        ]
    )


def _program(ending: Ending) -> list[str]:
    """All tiles of the columns: first those that add four products in 16 bits."""
    tile, channels = ending.tile, ending.epilogue.channels
    parts = ((replace(tile, fours=True), ending.fours), (tile, channels - ending.fours))
    loops = [_loop(replace(ending, tile=each), count) for each, count in parts if count]
    if ending.fours:
        loops[0] = [*fours.BACK, *loops[0], *fours.FORTH]
    return [line for loop in loops for line in loop]


def _loop(ending: Ending, channels: int) -> list[str]:
    lines = _round(ending)
    tiles = channels // ending.tile.columns
    if tiles == 1:
        return lines
    count = micro.TILES
    # The jump ends a block, so that all rounds of the loop count as the same one.
    begin = [f"mov {count}, {tiles}", "b 2f", "2:"]
    return [*begin, *lines, f"subs {count}, {count}, 1", "b.ne 2b"]


def _round(ending: Ending) -> list[str]:
    """One tile."""
    tile = ending.tile
    code = Code(tile.loads, _CARRIERS)
    sums = [code.value() for _ in range(ending.registers)]
    held = {value: f"v{_FIRST + i}" for i, value in enumerate(sums)}
    deep = fours.DEEP if tile.fours else micro.DEEP
    if tile.k > deep:
        steps = fours.last_step(tile) if tile.fours else micro.last_step(tile)
        sums = _last_step(code, steps, sums, held)
        code.advance(WEIGHTS, deep * tile.columns)
    (_dots if tile.isa == "dotprod" else _parts)(code, ending, sums)
    _advance(code, ending)
    begin = fours.program(tile) if tile.fours else micro.program(tile, last=False)
    return begin + code.program(held)


def _advance(code: Code, ending: Ending) -> None:
    """Pointers to the next columns."""
    tile, at = ending.tile, PLACES[ending.tile.isa]
    for pointer in (micro.START, at.constants.shift, at.constants.multiplier):
        code.advance(pointer, 4 * tile.columns)
    for pointer in (at.out, at.skip) if ending.epilogue.residual else (at.out,):
        code.advance(pointer, tile.columns)


def _last_step(
    code: Code, steps: Sequence[Step], sums: Sequence[int], held: dict[int, str]
) -> list[int]:
    """The last products; the sums with them. Adds the operands to the values that are there."""
    values = {_FIRST + i: value for i, value in enumerate(sums)}
    operands = dict.fromkeys(operand for step in steps for operand in step.uses)
    for operand in operands:
        if not operand.late:
            values[operand.register] = code.value()
            held[values[operand.register]] = f"v{operand.register}"
    late = {operand for operand in operands if operand.late}
    for step in steps:
        for operand in step.uses:
            if operand in late:
                late.remove(operand)
                values[operand.register] = code.load(operand.base, operand.offset)
        target, *reads = (int(number) for number in _VECTOR.findall(step.text))
        numbers = iter(range(1 + len(reads)))
        shape = _VECTOR.sub(lambda _, n=numbers: f"{{{next(n)}}}", step.text)  # type: ignore[misc]
        given = [values[register] for register in reads]
        if step.text.startswith(_SUMMING):
            values[target] = code.change(shape, values[target], *given)
        else:
            values[target] = code.make(shape, *given)
    return [values[_FIRST + i] for i in range(len(sums))]


def _dots(code: Code, ending: Ending, sums: Sequence[int]) -> None:
    """Rows of 8 channels."""
    shape, at = ending.epilogue, PLACES["dotprod"]
    finish = prepare(code, shape, at.constants, keep=True)
    for row in range(ending.tile.rows):
        offset = row * shape.channels
        skip = code.load(at.skip, offset, CHANNELS) if shape.residual else None
        value = finish.apply(code, sums[2 * row : 2 * row + 2], skip)
        code.store(value, at.out, offset)


def _parts(code: Code, ending: Ending, sums: Sequence[int]) -> None:
    """Pairs of rows of 4 channels."""
    shape, at, rows = ending.epilogue, PLACES["neon"], ending.tile.rows
    finish = prepare(code, shape, at.constants, keep=True, halves=(0,))
    bias = code.load(micro.START, 0)
    totals = []
    for row in range(rows):
        parts = sums[4 * row : 4 * row + 4]
        pairs = [code.make(_ADDP, parts[at], parts[at + 1]) for at in (0, 2)]
        totals.append(code.make("add {0}.4s, {1}.4s, {2}.4s", code.make(_ADDP, *pairs), bias))
    for row in range(0, rows, 2):
        here = totals[row : row + 2]
        places = [(row + i) * shape.channels for i in range(len(here))]
        skip = code.load_words(at.skip, places[0], places[-1]) if shape.residual else None
        value = finish.apply(code, here, skip, (0, 0))
        for lane, place in enumerate(places):
            code.store_word(value, lane, at.out, place)
