"""The kernels by `smmla` against the oracle, bit for bit, under QEMU.

The other kernels of the variant i8mm are those of dotprod, which `test_kernels.py` runs.
"""

from __future__ import annotations

from pathlib import Path

from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.kernels.matrix import buffer_bytes
from mfn_compile.arm.kernels.micro import Tile
from mfn_compile.arm.schedules import Schedules
from tests.arm import emulated
from tests.arm.graphs import Draft, Style
from tests.arm.test_kernels import (
    every_row_count,
    largest_accumulators,
    linear,
    lowest_products,
    short,
    under_emulation,
)


def short_rows(slope: str, zero: int) -> IntegerGraph:
    """Tiles that finish their sums themselves: 19 to 2 rows, with and without an addition."""
    draft = Draft(1, Style(slope=slope))

    def conv(*args: object, **fields: object) -> str:
        draft.conv(*args, **fields)  # type: ignore[arg-type]
        return short(draft, zero)

    x = conv(draft.image(1, 19), 24)
    for outputs in (40, 16, 70, 24, 16, 33, 16, 24, 65):
        x = conv(x, outputs, (1, 2))
        x = conv(x, outputs, skip=x)
    while draft.shape(x)[1] > 2:
        x = conv(x, 20, (1, 2))
    return draft.graph(linear(draft, x))


def long_rows() -> IntegerGraph:
    """Rows that are too long for the buffer."""
    draft = Draft(2, Style("few", slope="usual"))
    draft.conv(draft.image(5, 5), 128)
    draft.conv(short(draft, 0), 24, (3, 3))
    depth = 9 * 128
    assert not buffer_bytes(Tile("i8mm", 8, depth, paired=True, loads="whole"))
    return draft.graph(linear(draft, short(draft, 0)))


def test_matrix_products(tmp_path: Path) -> None:
    emulated.need_emulator()
    machine = emulated.I8MM
    batch = [
        short_rows("none", -128),
        short_rows("none", 6),
        short_rows("usual", 0),
        long_rows(),
        every_row_count(),
        lowest_products(),
        largest_accumulators(1),
    ]
    schedules = Schedules(machine.cpu, machine.isa)
    under_emulation(batch, machine, schedules, ("max",), tmp_path)
