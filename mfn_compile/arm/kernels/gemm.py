"""Matrix kernel: pointwise and linear layers, and any dense convolution after `patches`.

out[i, j] = epilogue(sum over k of x[i, k] * weight[j, k]); x is int8 [m, k] row-major, the weights
are packed for the instruction set's tile. One table row an instruction set says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import s_tir, te, tirx

from mfn_compile.arm.kernels import fours, intrinsics, matrix, micro
from mfn_compile.arm.kernels.epilogue import Epilogue, finish
from mfn_compile.arm.kernels.knobs import Key, Knobs, Value
from mfn_compile.arm.kernels.simple import SPAN
from mfn_compile.arm.kernels.tiled import build_tiled

MOST = 255  # absolute weights whose products with int8 fit in int16 together
GRAIN = 16  # channels
Int8 = NDArray[np.int8]
Array = NDArray[Any]


@dataclass(frozen=True)
class Gemm:
    """m rows, k input channels (a multiple of 16), and the output channels of its epilogue.

    `paired` says that two products fit in 16 bits (see `micro.Tile`); `rows` is the tile; `calls`
    are as many as a layer's rows are computed in. Of the first `fours` channels four products fit
    (see `fours.py`).
    """

    m: int
    k: int
    rows: int
    paired: bool
    epilogue: Epilogue
    calls: int = 1
    fours: int = 0

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        strips = "" if self.calls == 1 else f"_in{self.calls}"
        return f"{self._shape}{strips}_{self.epilogue.tag}"

    @property
    def key(self) -> Key:
        """What knobs are looked up by; in how many calls is not in it."""
        sizes = {"m": self.m, "n": self.epilogue.channels, "k": self.k, "rows": self.rows}
        attributes: dict[str, Value] = {"paired": self.paired, "epilogue": self.epilogue.tag}
        if self.fours:
            attributes["fours"] = self.fours
        return Key("gemm", f"{self._shape}_{self.epilogue.tag}", sizes, attributes)

    @property
    def _shape(self) -> str:
        pairs = "" if self.paired else "_single"
        pairs += f"_fours{self.fours}" if self.fours else ""
        return f"gemm_{self.m}x{self.epilogue.channels}x{self.k}{pairs}"

    @property
    def units(self) -> int:
        """Tiles of rows."""
        return self.m // self.rows


@dataclass(frozen=True)
class Tile:
    """How an instruction set computes a matrix product.

    Attributes:
        rows: largest tile height.
        columns: output channels of a tile; divides 16.
        pack: int8 weights [n, k] to the packed array.
        accumulate: (x, packed weights, n, k) to the int32 stages, the last one [n/columns, m,
            columns].
        schedule: places the stages below the tile loop and tensorizes them.
        isa: instead of both, the tiles of `micro.py`.
    """

    rows: int
    columns: int
    pack: Callable[[Int8], Array]
    accumulate: Callable[[Any, Any, int, int], Any] | None = None
    schedule: Callable[[s_tir.Schedule, Gemm, Any], None] | None = None
    isa: micro.Isa | None = None


def build(kernel: Gemm, tile: Tile, knobs: Knobs) -> tirx.PrimFunc:
    """The scheduled kernel.

    Operands: x, weights, the epilogue's constants, [skip], out; its units are tiles of rows.
    """
    if tile.isa is not None:
        packed = tile.pack(np.zeros((kernel.epilogue.channels, kernel.k), np.int8)).shape
        inner = micro.Tile(
            tile.isa,
            kernel.rows,
            kernel.k,
            kernel.paired,
            knobs.loads,
            late=knobs.late,
            gap=knobs.gap,
        )
        return build_tiled(kernel.name, kernel.m, inner, kernel.epilogue, packed, kernel.fours)
    return _build_scheduled(kernel, tile)


def _build_scheduled(kernel: Gemm, tile: Tile) -> tirx.PrimFunc:
    assert tile.accumulate is not None
    m, k, n = kernel.m, kernel.k, kernel.epilogue.channels
    x = te.placeholder((m, k), "int8", name="x")
    sample = tile.pack(np.zeros((n, k), np.int8))
    weights = te.placeholder(sample.shape, str(sample.dtype), name="weights")
    operands = {
        name: te.placeholder(shape, dtype, name=name)
        for name, (shape, dtype) in kernel.epilogue.operands().items()
    }
    skip = te.placeholder((m, n), "int8", name="skip") if kernel.epilogue.residual else None
    acc = tile.accumulate(x, weights, n, k)
    width = tile.columns

    def value(i: Any, j: Any) -> Any:
        other = None if skip is None else skip[i, j]
        return finish(kernel.epilogue, operands, acc[j // width, i, j % width], j, other)

    out = te.compute((m, n), value, name="out")
    arguments = [x, weights, *operands.values(), *([] if skip is None else [skip]), out]
    function = te.create_prim_func(arguments)
    # The result may take the place of the skip tensor, value by value.
    function = function.with_attr({"global_symbol": kernel.name, "tirx.noalias": skip is None})
    return _schedule(function, kernel, tile)


def _schedule(function: tirx.PrimFunc, kernel: Gemm, tile: Tile) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(function)
    i, j = schedule.get_loops(schedule.get_sblock("out"))
    i_tile, row = schedule.split(i, [None, kernel.rows])
    j_tile, column = schedule.split(j, [None, tile.columns])
    schedule.reorder(i_tile, j_tile, row, column)
    schedule.unroll(row)
    schedule.vectorize(column)
    assert tile.schedule is not None
    tile.schedule(schedule, kernel, j_tile)
    (scheduled,) = schedule.mod.functions.values()
    return _spanned(scheduled)


def _spanned(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The outermost loop from `begin` to `end`, two more arguments."""
    begin, end = (tirx.Var(name, "int32") for name in SPAN)
    root = function.body.block
    loop = root.body
    inner = tirx.For(loop.loop_var, begin, end - begin, loop.kind, loop.body)
    block = s_tir.SBlock(
        root.iter_vars, root.reads, root.writes, root.name_hint, inner, None, root.alloc_buffers
    )
    body = s_tir.SBlockRealize([], True, block)
    return tirx.PrimFunc([*function.params, begin, end], body, attrs=function.attrs)


def _product(x: Any, i: Any, k: Any, weight: Any) -> Any:
    return x[i, k].astype("int32") * weight.astype("int32")


def _init(schedule: s_tir.Schedule, block: Any, loop: Any) -> None:
    """Clear the accumulators in front of `loop`, unrolled and vectorized."""
    init = schedule.decompose_reduction(block, loop)
    *outer, last = schedule.get_loops(init)[2:]
    for each in outer:
        schedule.unroll(each)
    schedule.vectorize(last)


def _outermost(kernel: Gemm, row: Any, column: Any) -> Any:
    """Loop that the intrinsic replaces; a single row's loop is not part of its block."""
    return row if kernel.rows > 1 else column


def _pack_dotprod(weight: Int8) -> Array:
    n, k = weight.shape
    return weight.reshape(n // 8, 8, k // 4, 4).transpose(0, 2, 1, 3)


def _pack_neon(weight: Int8) -> Array:
    n, k = weight.shape
    return weight.reshape(n // 4, 4, k // 16, 16).transpose(0, 2, 1, 3)


def _pack_avx2(weight: Int8) -> Array:
    n, k = weight.shape
    return weight.astype(np.int16).reshape(n // 8, 8, k // 2, 2).transpose(0, 2, 1, 3)


def _accumulate_avx2(x: Any, w: Any, n: int, k: int) -> Any:
    wide = te.compute(x.shape, lambda i, j: x[i, j].astype("int16"), name="wide")
    outer, inner = te.reduce_axis((0, k // 2), name="ko"), te.reduce_axis((0, 2), name="ki")
    return te.compute(
        (n // 8, x.shape[0], 8),
        lambda jo, i, ji: te.sum(
            _product(wide, i, outer * 2 + inner, w[jo, outer, ji, inner]), axis=[outer, inner]
        ),
        name="acc",
    )


def _schedule_avx2(schedule: s_tir.Schedule, kernel: Gemm, loop: Any) -> None:
    block = schedule.get_sblock("acc")
    schedule.compute_at(block, loop, preserve_unit_loops=True)
    row, column, outer, inner = schedule.get_loops(block)[-4:]
    deep, pair = schedule.split(outer, [None, 8])
    schedule.reorder(deep, row, column, pair, inner)
    _init(schedule, block, deep)
    wide = schedule.get_sblock("wide")
    schedule.compute_at(wide, deep, preserve_unit_loops=True)
    wide_row, wide_column = schedule.get_loops(wide)[-2:]
    schedule.unroll(wide_row)
    schedule.vectorize(wide_column)
    schedule.tensorize(_outermost(kernel, row, column), intrinsics.avx2(kernel.rows))


def _pack_generic(weight: Int8) -> Array:
    n, k = weight.shape
    return weight.reshape(n // 8, 8, k).transpose(0, 2, 1)


def _accumulate_generic(x: Any, w: Any, n: int, k: int) -> Any:
    axis = te.reduce_axis((0, k), name="k")
    return te.compute(
        (n // 8, x.shape[0], 8),
        lambda jo, i, ji: te.sum(_product(x, i, axis, w[jo, axis, ji]), axis=axis),
        name="acc",
    )


def _schedule_generic(schedule: s_tir.Schedule, kernel: Gemm, loop: Any) -> None:
    block = schedule.get_sblock("acc")
    schedule.compute_at(block, loop, preserve_unit_loops=True)
    row, column, axis = schedule.get_loops(block)[-3:]
    schedule.reorder(axis, row, column)
    schedule.unroll(row)
    schedule.vectorize(column)
    schedule.decompose_reduction(block, axis)


TILES: dict[str, Tile] = {
    "dotprod": Tile(micro.ROWS["dotprod"], micro.COLUMNS["dotprod"], _pack_dotprod, isa="dotprod"),
    "neon": Tile(micro.ROWS["neon"], micro.COLUMNS["neon"], _pack_neon, isa="neon"),
    "i8mm": Tile(micro.ROWS["i8mm"], micro.COLUMNS["i8mm"], matrix.pack, isa="i8mm"),
    "avx2": Tile(6, 8, _pack_avx2, _accumulate_avx2, _schedule_avx2),
    "generic": Tile(4, 8, _pack_generic, _accumulate_generic, _schedule_generic),
}


def pairs_fit(weight: Int8, deep: int = micro.DEEP) -> bool:
    """Whether products of two weights that `smlal` adds, with activations of -128, fit in int16.

    Only a pair of weights that are both -128 does not: 2 * 128 * 128 = 2**15.

    Args:
        weight: int8 [n, k], k a multiple of 16; partners are 8 input channels apart.
    """
    halves = weight.reshape(len(weight), -1, 2, deep // 2).astype(np.int32)
    return bool((np.abs(halves).sum(axis=2) * 128 < 2**15).all())


def fours_fit(weight: Int8) -> int:
    """Of how many channels from the first, four products that `fours.py` adds fit in int16.

    With activations of -128, absolute weights of at most 255 in all: 255 * 128 < 2**15. Where that
    is not every channel it is a multiple of `GRAIN`, so that layers of one shape share kernels.

    Args:
        weight: int8 [n, k], k a multiple of 16, n of the tile's columns.
    """
    if weight.shape[1] < fours.DEEP:
        return 0
    fit = (added(np.abs(weight.astype(np.int32))) <= MOST).all(axis=1)
    return int(fit.size) if fit.all() else int(np.argmin(fit)) // GRAIN * GRAIN


def added(weight: Array) -> Array:
    """[n, groups]: the sums of [n, k] values whose products are added in 16 bits."""
    n, k = weight.shape
    begin = k % fours.DEEP
    short = weight[:, :begin].reshape(n, begin // 16, 2, 8).sum(axis=2)
    rest = weight[:, begin:].reshape(n, -1, 4, 8).sum(axis=2)
    found: Array = np.concatenate([short.reshape(n, -1), rest.reshape(n, -1)], axis=1)
    return found
