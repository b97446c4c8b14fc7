"""The matrix kernel on AArch64: tiles of assembly (`micro.py`) and their epilogue, in TensorIR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder

from mfn_compile.arm.kernels import ending, matrix, matrix_ending, micro
from mfn_compile.arm.kernels.ending import Ending
from mfn_compile.arm.kernels.epilogue import Epilogue
from mfn_compile.arm.kernels.finishing import is_short
from mfn_compile.arm.kernels.micro import Tile
from mfn_compile.arm.kernels.registers import GROUP, Sums, to_bytes, to_floats
from mfn_compile.arm.kernels.simple import kernel
from mfn_compile.arm.kernels.vectors import half, load

Expr = Any


def build_tiled(
    name: str, m: int, tile: Tile, epilogue: Epilogue, packed: tuple[int, ...], fours: int = 0
) -> tirx.PrimFunc:
    """The kernel of m rows, a multiple of the tile's.

    Of the first `fours` channels, four products are added in 16 bits.

    Operands: x, weights of shape `packed` (int8), the epilogue's constants, [skip], out; its units
    are tiles of rows.
    """
    n = epilogue.channels
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "x": ((m, tile.k), "int8"),
        "weights": (packed, "int8"),
        **(matrix_ending.operands(epilogue) if tile.isa == "i8mm" else epilogue.operands()),
    }
    if epilogue.residual:
        shapes["skip"] = ((m, n), "int8")
    shapes["out"] = ((m, n), "float32" if epilogue.to_float else "int8")
    short = is_short(epilogue)
    tile = replace(tile, partial=short and tile.isa == "neon")
    whole = Ending(tile, epilogue, fours)
    builder = IRBuilder()
    # The result may take the place of the skip tensor, value by value.
    with (
        kernel(builder, name, shapes, noalias=not epilogue.residual) as buffers,
        T.attr(T.int32(0), "pragma_import_llvm", _assembly(whole, short=short)),
        T.serial(buffers["begin"], buffers["end"]) as row,
    ):
        if short:
            given = _operands(buffers, tile, row, 0)
            given += _ends(epilogue, buffers, row * tile.rows)
            T.evaluate(T.call_extern("void", whole.name, *given))
        else:
            with T.serial(0, n // tile.columns) as column:
                sums = T.alloc_buffer((tile.rows, tile.columns), "int32")
                given = [*_operands(buffers, tile, row, column), sums.access_ptr("w")]
                T.evaluate(T.call_extern("void", tile.name, *given))
                _finish(epilogue, buffers, tile, sums, row * tile.rows, column * tile.columns)
    return builder.get()


def _assembly(whole: Ending, *, short: bool) -> str:
    if whole.tile.isa == "i8mm":
        return matrix_ending.ending_ir(whole) if short else matrix.tile_ir(whole.tile)
    return ending.ending_ir(whole) if short else micro.tile_ir(whole.tile)


def _operands(buffers: dict[str, Any], tile: Tile, row: Expr, column: Expr) -> list[Expr]:
    """What a tile multiplies, and its bias."""
    j = column * tile.columns
    return [
        buffers["x"].access_ptr("r", offset=row * (tile.rows * tile.k)),
        buffers["weights"].access_ptr("r", offset=j * tile.k),
        buffers["bias"].access_ptr("r", offset=j),
    ]


def _ends(shape: Epilogue, buffers: dict[str, Any], i: Expr) -> list[Expr]:
    """What `ending_ir` needs of the rows from i besides."""
    at = i * shape.channels
    found = [buffers["out"].access_ptr("w", offset=at)]
    found += [buffers[name].access_ptr("r") for name in ("shift", "multiplier")]
    if shape.residual:
        found.append(buffers["skip"].access_ptr("r", offset=at))
        found += [buffers[name].access_ptr("r") for name in ("add_scales", "add_floats")]
    return found


def _finish(
    shape: Epilogue, buffers: dict[str, Any], tile: Tile, sums: Any, i: Expr, j: Expr
) -> None:
    """Write a tile's results."""
    places = [(r, c) for r in range(tile.rows) for c in range(0, tile.columns, 4)]
    biased = tile.isa == "dotprod"
    values = [Sums(load(sums, place, 4), j + place[1], biased) for place in places]
    if shape.to_float:
        for (r, c), each in zip(places, values, strict=True):
            value = to_floats(shape, buffers, each)
            T.buffer_store(buffers["out"], value, [i + r, T.ramp(j + c, 1, 4)])
        return
    for at in range(0, len(places), GROUP):
        here = places[at : at + GROUP]
        spare = [here[-1]] * (GROUP - len(here))
        group = values[at : at + GROUP]
        group = [*group, *[group[-1]] * len(spare)]
        skip = None
        if shape.residual:
            skip = _gather(buffers["skip"], [*here, *spare], i, j)
        _scatter(buffers["out"], to_bytes(shape, buffers, group, skip), here, i, j)


def _gather(buffer: Any, places: Sequence[tuple[int, int]], i: Expr, j: Expr) -> Expr:
    """int8x16 of four times four neighbours."""
    parts = [T.reinterpret("int32", load(buffer, [i + r, j + c], 4)) for r, c in places]
    lanes = [tirx.Broadcast(part, 4) for part in parts]
    return T.reinterpret("int8x16", tirx.Shuffle(lanes, [0, 5, 10, 15]))


def _scatter(buffer: Any, value: Expr, places: Sequence[tuple[int, int]], i: Expr, j: Expr) -> None:
    """Write four lanes to each place; two places that are neighbours at once."""
    rows = [r for r, _ in places]
    if len(places) > 1 and rows[0] == rows[1]:
        for at in range(0, len(places), 2):
            r, c = places[at]
            T.buffer_store(buffer, half(value, at > 0), [i + r, T.ramp(j + c, 1, 8)])
        return
    words = T.reinterpret("int32x4", value)
    for at, (r, c) in enumerate(places):
        word = T.reinterpret("int8x4", tirx.Shuffle([words], [at]))
        T.buffer_store(buffer, word, [i + r, T.ramp(j + c, 1, 4)])
