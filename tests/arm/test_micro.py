"""The assembly of the matrix kernels, followed in Python: operands are there when they are read."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mfn_compile.arm.graph import Conv
from mfn_compile.arm.kernels import epilogue, fours, micro
from mfn_compile.arm.kernels.knobs import Loads
from tests.arm.graphs import Draft, Style

_LOADS: tuple[Loads, ...] = ("whole", "halves", "general")
_DEPTHS = (16, 32, 48, 64, 80, 256)


class Machine:
    """Runs a tile's program on numbers: general registers are ints, vectors are where bytes lie."""

    def __init__(self, tile: micro.Tile) -> None:
        self.tile = tile
        self.general: dict[str, object] = {f"x{i}": i << 20 for i in range(tile.rows)}
        self.general |= {"x8": 8 << 20, "x9": 9 << 20}
        self.lanes: dict[tuple[int, int], object] = {}
        self.reads: list[tuple[str, tuple[object, ...]]] = []

    def run(self, lines: list[str]) -> None:
        at = 0
        while at < len(lines):
            at = self._step(lines[at], at, lines)

    def _step(self, line: str, at: int, lines: list[str]) -> int:
        name, _, rest = line.partition(" ")
        if name == "b.ne":
            return lines.index("1:") if self.general["flags"] else at + 1
        if name in ("mov", "add", "sub", "subs") and rest.startswith("x"):
            target, *parts = rest.split(", ")
            values = [self.general[p] if p.startswith("x") else int(p) for p in parts]
            numbers = [value for value in values if isinstance(value, int)]
            total = numbers[0] - numbers[1] if "sub" in name else sum(numbers)
            self.general[target] = total
            if name == "subs":
                self.general["flags"] = total
        elif name == "ldr":
            self._load(rest)
        elif name == "ins":
            register, half, source = re.findall(r"\d+", rest.replace("d[", ""))
            self.lanes[int(register), int(half)] = self.general[f"x{source}"]
        elif name in ("smull", "smull2", "smlal", "smlal2", "sdot"):
            self.reads.append((line, self._operands(rest, high="2" in name)))
        return at + 1

    def _load(self, rest: str) -> None:
        target, _, place = rest.partition(", ")
        parts = place.strip("[]").split(", ")
        numbers = [self.general[p] if p.startswith("x") else int(p) for p in parts]
        address = sum(number for number in numbers if isinstance(number, int))
        base, offset = address >> 20, address & 0xFFFFF
        limit = {8: self.tile.k * self.tile.columns, 9: 4 * self.tile.columns}
        size = 16 if target[0] == "q" else 8
        assert offset + size <= limit.get(base, self.tile.k), f"{rest} reads behind the operand"
        number = int(target[1:])
        if target[0] == "x":
            self.general[target] = ("bytes", base, offset)
            return
        self.lanes[number, 0] = ("bytes", base, offset)
        self.lanes[number, 1] = ("bytes", base, offset + 8) if size == 16 else "zero"

    def _operands(self, rest: str, *, high: bool) -> tuple[object, ...]:
        first, second = (int(n) for n in re.findall(r"v(\d+)", rest)[1:])
        halves = (0, 1) if self.tile.isa == "dotprod" else (int(high),)
        return tuple(self.lanes[number, half] for number in (first, second) for half in halves)


@pytest.mark.parametrize(("loads", "isa"), list(product(_LOADS, ("dotprod", "neon"))))
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("late", "gap"), [(True, 3), (False, 2), (False, 5), (True, 4)])
def test_every_product_reads_its_operands(
    loads: Loads, isa: micro.Isa, paired: bool, late: bool, gap: int
) -> None:
    for rows, k in product(range(1, micro.ROWS[isa] + 1), _DEPTHS):
        tile = micro.Tile(isa, rows, k, paired, loads, late=late, gap=gap)
        machine = Machine(tile)
        machine.run(micro.program(tile))
        assert sorted(map(_product, machine.reads, [tile] * len(machine.reads))) == _wanted(tile)


@pytest.mark.parametrize("loads", _LOADS)
@pytest.mark.parametrize(("late", "gap"), [(True, 3), (False, 2), (False, 5), (True, 4)])
def test_every_product_of_fours_reads_its_operands(loads: Loads, late: bool, gap: int) -> None:
    for k in (32, 48, 64, 80, 96, 112, 128, 144, 160, 256):
        tile = micro.Tile("neon", 4, k, True, loads, late=late, gap=gap, fours=True)
        lines = [*fours.BACK, *fours.program(tile)]
        if k > fours.DEEP:
            waiting = [o for step in fours.last_step(tile) for o in step.uses if o.late]
            for step in fours.last_step(tile):
                for operand in step.uses:
                    if operand in waiting:
                        waiting = [o for o in waiting if o != operand]
                        place = f"[{operand.base}, {operand.offset}]"
                        lines.append(f"ldr q{operand.register}, {place}")
                lines.append(step.text)
        machine = Machine(tile)
        machine.run(lines)
        assert sorted(map(_product, machine.reads, [tile] * len(machine.reads))) == _wanted(tile)
        totals = [line for line in lines if line.startswith(("saddlp", "sadalp"))]
        assert sum(line.startswith("saddlp") for line in totals) == 16


def _product(read: tuple[str, tuple[object, ...]], tile: micro.Tile) -> tuple[int, ...]:
    """(sum, depth of x, place of the weights) of an instruction."""
    line, operands = read
    at: list[tuple[int, int]] = []
    for each in operands:
        assert isinstance(each, tuple), f"{line} reads {each}"
        at.append((each[1], each[2]))
    if tile.isa == "dotprod":
        (base, weights), _, (row, depth), _ = at
        quad = int(line[-2])
        target = int(line.split(".")[0].removeprefix("sdot v")) - 16
        assert (base, row, at[1], at[3]) == (8, target // 2, (8, weights + 8), (row, depth + 8))
        return target, depth + 4 * quad, weights
    (row, depth), (base, weights) = at
    assert base == 8
    return row, depth, weights


def _wanted(tile: micro.Tile) -> list[tuple[int, ...]]:
    if tile.isa == "dotprod":
        return sorted(
            (2 * i + half, 4 * quad, 32 * quad + 16 * half)
            for i, half, quad in product(range(tile.rows), range(2), range(tile.k // 4))
        )
    return sorted(
        (i, 16 * step + 8 * half, 64 * step + 16 * j + 8 * half)
        for i, j, step, half in product(range(tile.rows), range(4), range(tile.k // 16), range(2))
    )


def test_adding_the_magic_number_rounds_half_to_even() -> None:
    halves = np.arange(-(2**16), 2**16, dtype=np.float32) / 2
    near = np.concatenate([halves, np.nextafter(halves, np.inf), np.nextafter(halves, -np.inf)])
    for shift in (0, -128, 126, 2):
        bits = (near + np.float32(epilogue.MAGIC + shift)).view(np.int32)
        low = bits.astype(np.int16) if shift == 0 else (bits & 0xFFFF).astype(np.uint16)
        wanted = np.rint(near).astype(np.int64) + shift
        fits = np.abs(wanted) < 2**15
        assert np.array_equal(low.view(np.int16)[fits], wanted[fits])


def test_a_split_bias_gives_the_exact_sum() -> None:
    random = np.random.default_rng(0)
    edge = np.array([0, 1, -1, 2**24, -(2**24), 2**24 - 1, 1 - 2**24], np.int64)
    bias = np.concatenate([edge, random.integers(-(2**24), 2**24, 1000)])
    split = epilogue._split_bias(bias.astype(np.int32))
    for products in (0, 1, -1, epilogue.SMALL - 2, 2 - epilogue.SMALL, 12345):
        fits = np.abs(bias + products) <= epilogue.EXACT
        total = (split["bias"] + np.int32(products)).view(np.float32) - split["shift"]
        assert np.array_equal(total[fits], (bias + products)[fits].astype(np.float32))


def test_one_multiply_add_scales_a_positive_sum_exactly() -> None:
    random = np.random.default_rng(1)
    total = np.concatenate([np.arange(2000), random.integers(0, 2**23, 4000)]).astype(np.int32)
    factor = random.uniform(1e-6, 1, len(total)).astype(np.float32)
    for sign in (1, -1):
        split = epilogue._positive_bias(sign * total, factor)
        bits = split["bias"].view(np.float32).astype(np.float64)
        # Exact in float64: 24 bits times 24 bits, and a difference that 24 bits hold or ReLU cuts.
        found = (bits * factor + split["shift"].astype(np.float64)).astype(np.float32)
        wanted = (sign * total).astype(np.float32) * factor
        assert np.array_equal(found, wanted) if sign > 0 else bool((found <= 0).all())


def test_no_infinity_is_added_where_a_channel_is_always_zero() -> None:
    draft = Draft(1, Style(limits="relu", bias="zero"))
    draft.conv(draft.image(2, 2), 16)
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    stage = replace(node.output_stage, multiplier=np.full(16, 3e38, np.float32))
    node = replace(node, weight=np.zeros_like(node.weight), output_stage=stage)
    shape = epilogue.shape_of(node, 16, vectors=True)
    assert all(np.isfinite(array).all() for array in epilogue.constants_of(node, shape).values())
