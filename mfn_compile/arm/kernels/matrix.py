"""The inner loops of the matrix kernels by `smmla`, in the assembly blocks of `micro.py`.

`smmla` adds to 2 x 2 sums the products of two rows of x with two output channels, 8 input channels
deep. Its operands hold 8 bytes of one row and 8 of the other, so rows of x are brought side by
side: once for all output channels, into a buffer, or within the loop where a function computes the
channels of one tile only. Weights are packed as they are read.

The order is plain, loads and then the products that read them: nearly all cores that have the
instruction are out of order. Registers beside those of `micro.py`: x10 points to
the buffer, x11 walks through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.kernels import micro
from mfn_compile.arm.kernels.micro import DEEP, Tile
from mfn_compile.arm.kernels.operands import WEIGHTS

FIRST = 16  # register of sums
BUFFER, COLUMNS = "x10", micro.COLUMNS["i8mm"]
PAIRS = COLUMNS // 2  # of output channels
_AT, _OFFSET, _COUNT = "x11", "x16", "x17"
_FLAT = 4  # steps that are written out
_MOST = 1024  # input channels of rows that the buffer takes: 8 KB of stack

Int8 = NDArray[np.int8]


def pack(weight: Int8) -> NDArray[np.int8]:
    """int8 [n, k] to [n / 8, k / 16, half, pair, channel of the pair, 8]."""
    n, k = weight.shape
    parts = weight.reshape(n // COLUMNS, PAIRS, 2, k // DEEP, 2, 8)
    return np.ascontiguousarray(parts.transpose(0, 3, 4, 1, 2, 5))


def doubled(array: NDArray[Any]) -> NDArray[Any]:
    """[..., n] to [..., 2 n]: every pair of channels twice, as the sums of two rows lie."""
    pairs = array.reshape(*array.shape[:-1], -1, 1, 2)
    return np.repeat(pairs, 2, axis=-2).reshape(*array.shape[:-1], -1)


def row_pairs(tile: Tile) -> int:
    """Pairs of rows; the last row of an odd number is its own partner."""
    return -(-tile.rows // 2)


def buffer_bytes(tile: Tile) -> int:
    """Of all rows side by side; 0 where they are too long for that."""
    return 2 * row_pairs(tile) * tile.k if tile.k <= _MOST else 0


def sum_of(row_pair: int, pair: int) -> int:
    """Register of [row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1]."""
    return FIRST + PAIRS * row_pair + pair


def beside(tile: Tile) -> list[str]:
    """Instructions that fill the buffer; `st2` puts the halves of two rows in turn."""
    steps = tile.k // DEEP
    unrolled = 2 - steps % 2
    lines = [f"mov {_AT}, {BUFFER}", f"mov {_COUNT}, {steps // unrolled}", "3:"]
    for at in range(unrolled):
        rows = range(2 * row_pairs(tile))  # pairs of neighbouring registers, as `st2` reads them
        lines += [f"ldr q{i}, [x{min(i, tile.rows - 1)}, {DEEP * at}]" for i in rows]
        lines += [f"st2 {{v{i}.2d, v{i + 1}.2d}}, [{_AT}], 32" for i in rows[::2]]
    lines += [f"add x{i}, x{i}, {DEEP * unrolled}" for i in range(tile.rows)]
    return [*lines, f"subs {_COUNT}, {_COUNT}, 1", "b.ne 3b"]


def _partners(tile: Tile) -> list[tuple[int, int]]:
    return [(2 * i, min(2 * i + 1, tile.rows - 1)) for i in range(row_pairs(tile))]


def products(tile: Tile, *, buffered: bool) -> list[str]:
    """Instructions that add all products of a column of tiles; they move the weights' pointer.

    Args:
        buffered: the rows come from the buffer.
    """
    steps = tile.k // DEEP
    step = _buffered_step if buffered else _direct_step
    lines = [f"mov {_AT}, {BUFFER}"] if buffered else [f"mov {_OFFSET}, 0"]
    if steps <= _FLAT:
        lines += [line for at in range(steps) for line in step(tile, at)]
        return lines + _advance(tile, steps, buffered=buffered)
    pair = [*step(tile, 0), *step(tile, 1)]
    lines += [f"mov {_COUNT}, {steps // 2}", "1:", f"subs {_COUNT}, {_COUNT}, 1", *pair]
    lines += [*_advance(tile, 2, buffered=buffered), "b.ne 1b"]
    if steps % 2:
        lines += [*step(tile, 0), *_advance(tile, 1, buffered=buffered)]
    return lines


def _advance(tile: Tile, steps: int, *, buffered: bool) -> list[str]:
    lines = [f"add {WEIGHTS}, {WEIGHTS}, {steps * DEEP * COLUMNS}"]
    return [*lines, f"add {_AT}, {_AT}, {steps * 32 * row_pairs(tile)}"] if buffered else lines


def _buffered_step(tile: Tile, at: int) -> list[str]:
    """16 input channels, `at` steps behind the pointers."""
    pairs, lines = row_pairs(tile), []
    for half in range(2):
        place = 32 * pairs * at + 16 * half
        rows, weights = range(4 * half, 4 * half + pairs), range(8 + 4 * half, 12 + 4 * half)
        lines += [f"ldr q{v}, [{_AT}, {place + 32 * i}]" for i, v in enumerate(rows)]
        lines += _weights(at, half, weights)
        lines += _multiply(rows, weights)
    return lines


def _direct_step(tile: Tile, at: int) -> list[str]:
    """The same from rows of x, of which it moves the offset: the first halves go to v8-v11, where
    they leave even registers to weights.
    """
    low, high = range(8, 8 + row_pairs(tile)), [b for _, b in _partners(tile)]
    lines = [f"ldr q{i}, [x{i}, {_OFFSET}]" for i in range(tile.rows)]
    lines += [
        f"zip1 v{v}.2d, v{a}.2d, v{b}.2d" for v, (a, b) in zip(low, _partners(tile), strict=True)
    ]
    lines += [f"zip2 v{b}.2d, v{a}.2d, v{b}.2d" for a, b in _partners(tile)]
    lines += [f"add {_OFFSET}, {_OFFSET}, {DEEP}"]
    for half, rows in enumerate((low, high)):
        weights = range(12, 16)
        lines += [*_weights(at, half, weights), *_multiply(rows, weights)]
    return lines


def _weights(at: int, half: int, registers: range) -> list[str]:
    place = DEEP * COLUMNS * at + 16 * PAIRS * half
    return [f"ldr q{v}, [{WEIGHTS}, {place + 16 * j}]" for j, v in enumerate(registers)]


def _multiply(rows: Sequence[int], weights: range) -> list[str]:
    return [
        f"smmla v{sum_of(i, j)}.4s, v{row}.16b, v{weight}.16b"
        for i, row in enumerate(rows)
        for j, weight in enumerate(weights)
    ]


@cache
def tile_ir(tile: Tile) -> str:
    """LLVM IR of `void name(x, weights, start, sums)`, to be inlined: `micro.tile_ir` by `smmla`,
    whose sums begin with 0.
    """
    used = [sum_of(i, j) for i in range(row_pairs(tile)) for j in range(PAIRS)]
    lines = [f"movi v{v}.2d, 0" for v in used] + products(tile, buffered=False)
    rows: list[int] = []
    for i in range(row_pairs(tile)):
        upper, lower = (2 * i, 2 * i + 1), (sum_of(i, 1), sum_of(i, 3))
        for half in range(2):
            a, b = sum_of(i, 2 * half), sum_of(i, 2 * half + 1)
            lines.append(f"zip1 v{upper[half]}.2d, v{a}.2d, v{b}.2d")
            lines.append(f"zip2 v{lower[half]}.2d, v{a}.2d, v{b}.2d")
        rows += [*upper, *(lower if 2 * i + 1 < tile.rows else ())]
    return micro.sums_ir(tile, lines, rows)
