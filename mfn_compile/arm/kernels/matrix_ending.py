"""Tiles of `matrix.py` whose sums become bytes in memory: all columns of some rows.

The constants of the channels come doubled (see `matrix.doubled`), so that the sums of two rows are
scaled as they lie; 16-bit results are sorted into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mfn_compile.arm.kernels import micro
from mfn_compile.arm.kernels.ending import PLACES, Ending, function_ir
from mfn_compile.arm.kernels.epilogue import MAGIC_BITS, Epilogue
from mfn_compile.arm.kernels.finishing import CHANNELS, is_short, prepare_addition
from mfn_compile.arm.kernels.matrix import (
    BUFFER,
    COLUMNS,
    PAIRS,
    beside,
    buffer_bytes,
    products,
    row_pairs,
    sum_of,
)
from mfn_compile.arm.kernels.straight import Code

DOUBLED = frozenset({"bias", "shift", "multiplier"})
_CARRIERS = tuple(f"x{i}" for i in (*range(12, 18), *range(20, 23)))


def operands(shape: Epilogue) -> dict[str, tuple[tuple[int, ...], str]]:
    """`Epilogue.operands` as the kernels here take them."""
    found = shape.operands()
    if is_short(shape):
        found |= {name: ((*found[name][0][:-1], 2 * shape.channels), found[name][1])
                  for name in DOUBLED & found.keys()}  # fmt: skip
    return found


@cache
def ending_ir(ending: Ending) -> str:
    """LLVM IR of a function like that of `ending.ending_ir`, with constants that are doubled."""
    size = buffer_bytes(ending.tile)
    return function_ir(ending, _program(ending), {BUFFER: size} if size else None)


def _program(ending: Ending) -> list[str]:
    tile = ending.tile
    buffered = buffer_bytes(tile) > 0
    pairs = range(row_pairs(tile))
    places = [(i, j) for i in pairs for j in range(PAIRS)]
    starts = [f"ldr q{sum_of(i, j)}, [{micro.START}, {16 * j}]" for i, j in places]
    code = Code(tile.loads, _CARRIERS)
    sums = [[code.value() for _ in range(PAIRS)] for _ in pairs]
    held = {value: f"v{sum_of(i, j)}" for i in pairs for j, value in enumerate(sums[i])}
    _finish(code, ending, sums)
    _advance(code, ending)
    return [
        *(beside(tile) if buffered else []),
        f"mov {micro.TILES}, {ending.epilogue.channels // COLUMNS}",
        "b 2f",
        "2:",
        *starts,
        *products(tile, buffered=buffered),
        *code.program(held),
        f"subs {micro.TILES}, {micro.TILES}, 1",
        "b.ne 2b",
    ]


def _finish(code: Code, ending: Ending, sums: Sequence[Sequence[int]]) -> None:
    shape, at = ending.epilogue, PLACES["i8mm"]
    assert shape.form is not None
    magic = code.constant(MAGIC_BITS + shape.form.shift)
    columns = [_scaled(code, shape, [row[j] for row in sums], j, magic) for j in range(PAIRS)]
    addition = prepare_addition(code, shape, at.constants, magic) if shape.residual else None
    for i in range(row_pairs(ending.tile)):
        rows = range(2 * i, min(2 * i + 2, ending.tile.rows))
        sorted_rows = _sorted(code, [column[i] for column in columns], len(rows))
        for row, words in zip(rows, sorted_rows, strict=True):
            value = code.make("sqxtn {0}.8b, {1}.8h", words)
            place = row * shape.channels
            if addition is not None:
                value = addition.apply(code, value, code.load(at.skip, place, CHANNELS))
            code.store(value, at.out, place)


def _scaled(code: Code, shape: Epilogue, sums: Sequence[int], j: int, magic: int) -> list[int]:
    """Scaled and rounded sums of a pair of channels, for all pairs of rows."""
    at = PLACES["i8mm"].constants
    assert shape.form is not None
    factor = code.load(at.multiplier, 16 * j)
    shift = None if shape.form.positive else code.load(at.shift, 16 * j)
    negative = code.load(at.multiplier, 8 * shape.channels + 16 * j) if shape.prelu else None
    found = []
    for total in sums:
        if shift is None:
            start = code.load(at.shift, 16 * j)
            value = code.change("fmla {0}.4s, {1}.4s, {2}.4s", start, total, factor)
        else:
            value = code.make("fsub {0}.4s, {1}.4s, {2}.4s", total, shift)
            chosen = factor
            if negative is not None:
                mask = code.make("cmlt {0}.4s, {1}.4s, 0", value)
                chosen = code.change("bsl {0}.16b, {1}.16b, {2}.16b", mask, negative, factor)
            value = code.make("fmul {0}.4s, {1}.4s, {2}.4s", value, chosen)
        found.append(code.make("fadd {0}.4s, {1}.4s, {2}.4s", value, magic))
    return found


def _sorted(code: Code, parts: Sequence[int], rows: int) -> list[int]:
    """Low 16 bits of the sums of a pair of rows: one register a row."""
    both = [code.make("uzp1 {0}.8h, {1}.8h, {2}.8h", parts[at], parts[at + 1]) for at in (0, 2)]
    return [code.make(f"uzp{row + 1} {{0}}.4s, {{1}}.4s, {{2}}.4s", *both) for row in range(rows)]


def _advance(code: Code, ending: Ending) -> None:
    """Pointers to the next columns."""
    at = PLACES["i8mm"]
    for pointer in (micro.START, at.constants.shift, at.constants.multiplier):
        code.advance(pointer, 8 * COLUMNS)
    for pointer in (at.out, at.skip) if ending.epilogue.residual else (at.out,):
        code.advance(pointer, COLUMNS)
