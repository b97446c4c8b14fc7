"""The assembly of the `smmla` kernels, run in Python on numbers."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfn_compile.arm.kernels import matrix, micro

Array = NDArray[Any]
_ROOM = 1 << 20  # bytes of an operand's address space


class Machine:
    """Runs instructions on bytes: x in rows, weights at x8, and the buffer at x10."""

    def __init__(self, x: Array, weights: Array) -> None:
        rows, k = x.shape
        self.memory = {i: bytearray(x[i].tobytes()) for i in range(rows)}
        self.memory |= {8: bytearray(weights.tobytes()), 10: bytearray(2 * -(-rows // 2) * k)}
        self.general = {f"x{i}": i * _ROOM for i in self.memory}
        self.general["flags"] = 0
        self.vectors = {v: np.zeros(16, np.uint8) for v in range(32)}

    def run(self, lines: list[str]) -> None:
        at = 0
        while at < len(lines):
            name, _, rest = lines[at].partition(" ")
            if name == "b.ne":
                at = lines.index(f"{rest[0]}:") if self.general["flags"] else at
            elif not name.endswith(":"):
                self._step(name, rest.split(", "), rest)
            at += 1

    def _step(self, name: str, parts: list[str], rest: str) -> None:
        if name in ("mov", "add", "subs"):
            values = [self.general[p] if p[0] == "x" else int(p) for p in parts[1:]]
            total = values[0] - values[1] if name == "subs" else sum(values)
            self.general[parts[0]] = total
            self.general["flags"] = total if name == "subs" else self.general["flags"]
            return
        numbers = [int(n) for n in re.findall(r"v(\d+)", rest)]
        if name == "ldr":
            self._load(int(parts[0][1:]), rest)
        elif name == "st2":
            self._store_both(numbers, rest)
        elif name == "movi":
            self.vectors[numbers[0]] = np.zeros(16, np.uint8)
        elif name in ("zip1", "zip2"):
            half = slice(8, 16) if name == "zip2" else slice(0, 8)
            both = [self.vectors[v][half] for v in numbers[1:]]
            self.vectors[numbers[0]] = np.concatenate(both)
        else:
            assert name == "smmla"
            a, b = (self.vectors[v].view(np.int8).reshape(2, 8).astype(int) for v in numbers[1:])
            total = self.vectors[numbers[0]].view(np.int32) + (a @ b.T).astype(np.int32).reshape(4)
            self.vectors[numbers[0]] = total.view(np.uint8)

    def _store_both(self, numbers: list[int], rest: str) -> None:
        base, step = re.search(r"\[(x\d+)\], (\d+)", rest).groups()  # type: ignore[union-attr]
        halves = np.stack([self.vectors[v].view(np.uint64) for v in numbers], axis=1)
        place, offset = divmod(self.general[base], _ROOM)
        self.memory[place][offset : offset + 32] = halves.tobytes()
        self.general[base] += int(step)

    def _load(self, number: int, rest: str) -> None:
        parts = re.search(r"\[(.*)\]", rest).group(1).split(", ")  # type: ignore[union-attr]
        address = sum(self.general[p] if p[0] == "x" else int(p) for p in parts)
        base, offset = divmod(address, _ROOM)
        assert offset + 16 <= len(self.memory[base]), f"{rest} is behind the operand"
        self.vectors[number] = np.frombuffer(self.memory[base], np.uint8, 16, offset).copy()


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("rows", range(1, 9))
def test_every_sum_is_the_product(rows: int, buffered: bool) -> None:
    random = np.random.default_rng(rows)
    for k in (16, 32, 64, 80, 144):
        tile = micro.Tile("i8mm", rows, k, paired=True, loads="whole")
        x, weight = (random.integers(-128, 128, (n, k)).astype(np.int8) for n in (rows, 8))
        machine = Machine(x, matrix.pack(weight))
        begin = [
            f"movi v{matrix.sum_of(i, j)}.2d, 0"
            for i, j in product(range(matrix.row_pairs(tile)), range(matrix.PAIRS))
        ]
        filled = matrix.beside(tile) if buffered else []
        machine.run([*filled, *begin, *matrix.products(tile, buffered=buffered)])
        wanted = x.astype(np.int32) @ weight.astype(np.int32).T
        for row, channel in product(range(rows), range(8)):
            sums = machine.vectors[matrix.sum_of(row // 2, channel // 2)].view(np.int32)
            assert sums[2 * (row % 2) + channel % 2] == wanted[row, channel]
        assert machine.general["x8"] == 8 * _ROOM + 8 * k  # at the next tile's weights


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_packing_keeps_every_weight_once(tiles: int, steps: int, seed: int) -> None:
    weight = np.random.default_rng(seed).permutation(np.arange(8 * tiles * 16 * steps))
    weight = weight.reshape(8 * tiles, 16 * steps)
    packed = matrix.pack(weight)
    assert np.array_equal(np.sort(packed, axis=None), np.arange(weight.size))
    assert np.array_equal(packed[0, 0, 0, 0], weight[:2, :8])
    assert np.array_equal(packed[-1, -1, 1, 3], weight[-2:, -8:])


def test_constants_lie_as_the_sums_of_two_rows() -> None:
    array = np.arange(8).reshape(2, 4)
    assert matrix.doubled(array).tolist() == [[0, 1, 0, 1, 2, 3, 2, 3], [4, 5, 4, 5, 6, 7, 6, 7]]


def test_long_rows_need_no_stack() -> None:
    short, long = (micro.Tile("i8mm", 7, k, paired=True, loads="whole") for k in (512, 4608))
    assert (matrix.buffer_bytes(short), matrix.buffer_bytes(long)) == (4096, 0)
