"""Tensor intrinsics: the multiply-accumulate tiles of the matrix kernels.

Every tile adds a [rows, channels] block of products over 16 input channels to int32 accumulators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm import s_tir, tirx
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder.tirx import prim_func as build_prim_func

DEEP = 16  # input channels of one tile: one 128-bit register of int8

Index = tuple[Any, ...]


@dataclass(frozen=True)
class _Shape:
    """Operands of a tile and its products: C[c] += A[a] * W[w] over `spatial` and `reduce`.

    `places(row, spatial..., reduce...)` gives the indices c, a and w.
    """

    dtype: str
    a: tuple[int, int]
    w: tuple[int, ...]
    c: tuple[int, ...]
    spatial: tuple[int, ...]
    reduce: tuple[int, ...]
    places: Callable[..., tuple[Index, Index, Index]]


@contextmanager
def _operands(shape: _Shape) -> Iterator[tuple[Any, Any, Any]]:
    """An open function over buffers A, W and C, inside of its root block."""
    with build_prim_func(s_tir=True):
        a, w, c = (T.arg(name, T.handle()) for name in "awc")
        A = T.match_buffer(a, shape.a, shape.dtype, offset_factor=1, strides=[T.int32(), 1])
        W = T.match_buffer(w, shape.w, shape.dtype, offset_factor=1)
        C = T.match_buffer(c, shape.c, "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(_whole(C), _whole(A), _whole(W))
            T.writes(_whole(C))
            yield A, W, C


def _whole(buffer: Any) -> Any:
    return buffer[tuple(slice(0, extent) for extent in buffer.shape)]


def _description(shape: _Shape) -> tirx.PrimFunc:
    """The tile in scalar loops; a single row has no loop, as the scheduler drops it."""
    rows = shape.a[0]
    extents = [*([] if rows == 1 else [rows]), *shape.spatial]
    kinds = [T.axis.spatial] * len(extents) + [T.axis.reduce] * len(shape.reduce)
    with (
        IRBuilder() as builder,
        _operands(shape) as (A, W, C),
        T.grid(*extents, *shape.reduce) as loops,
        T.sblock("update"),
    ):
        axes = [
            axis(extent, loop)
            for axis, extent, loop in zip(kinds, [*extents, *shape.reduce], loops, strict=True)
        ]
        c, a, w = shape.places(*([0] if rows == 1 else []), *axes)
        T.reads(C[c], A[a], W[w])
        T.writes(C[c])
        T.buffer_store(C, C[c] + A[a].astype("int32") * W[w].astype("int32"), list(c))
    return builder.get()


@cache
def dotprod(rows: int) -> str:
    """Name of the tile [rows, 8] of `sdot` by lane (Armv8.2-A dot product)."""
    name = f"mfn.dotprod_{rows}x8x16"
    shape = _Shape(
        dtype="int8",
        a=(rows, 16),
        w=(4, 8, 4),
        c=(rows, 8),
        spatial=(8,),
        reduce=(4, 4),
        places=lambda i, j, ko, ki: ((i, j), (i, ko * 4 + ki), (ko, j, ki)),
    )
    with IRBuilder() as builder, _operands(shape) as (A, W, C):
        quads = [T.reinterpret("int32x4", A.vload([i, 0], "int8x16")) for i in range(rows)]
        for lane in range(4):
            for half in (0, 4):
                weights = W.vload([lane, half, 0], "int8x16")
                for i in range(rows):
                    _dot_by_lane(C, i, half, weights, quads[i], lane)
    s_tir.TensorIntrin.register(name, _description(shape), builder.get(), override=True)
    return name


def _dot_by_lane(C: Any, row: int, column: int, weights: Any, quads: Any, lane: int) -> None:
    """C[row, column:column + 4] += weights . quad `lane`; LLVM folds the broadcast into sdot."""
    picked = tirx.Broadcast(tirx.Shuffle([quads], [lane]), 4)
    total = T.call_llvm_pure_intrin(
        "int32x4",
        "llvm.aarch64.neon.sdot.v4i32.v16i8",
        C.vload([row, column], "int32x4"),
        weights,
        T.reinterpret("int8x16", picked),
    )
    T.buffer_store(C, total, [row, T.ramp(column, 1, 4)])


@cache
def neon(rows: int, paired: bool) -> str:
    """Name of the tile [rows, 4, 4 partial sums] of plain Armv8.0 NEON.

    `paired` adds two products in 16 bits before they are widened (smull, smlal, sadalp); it needs
    weights whose pairs cannot reach 2**15 with activations of -128. Otherwise every product is
    widened by itself (smull, sadalp).
    """
    name = f"mfn.neon_{rows}x4x16_{'paired' if paired else 'single'}"
    shape = _Shape(
        dtype="int8",
        a=(rows, 16),
        w=(4, 16),
        c=(rows, 4, 4),
        spatial=(4, 4),
        reduce=(2, 2),
        places=lambda i, j, lane, half, pair: (
            (i, j, lane),
            (i, half * 8 + lane * 2 + pair),
            (j, half * 8 + lane * 2 + pair),
        ),
    )
    with IRBuilder() as builder, _operands(shape) as (A, W, C):
        values = [A.vload([i, 0], "int8x16") for i in range(rows)]
        for j in range(4):
            weights = W.vload([j, 0], "int8x16")
            for i in range(rows):
                _widening_sum(C, i, j, values[i], weights, paired)
    s_tir.TensorIntrin.register(name, _description(shape), builder.get(), override=True)
    return name


def _widening_sum(C: Any, i: int, j: int, values: Any, weights: Any, paired: bool) -> None:
    low, high = (
        T.call_llvm_pure_intrin(
            "int16x8",
            "llvm.aarch64.neon.smull.v8i16",
            half(values, dtype="int8x8"),
            half(weights, dtype="int8x8"),
        )
        for half in (T.vectorlow, T.vectorhigh)
    )
    total = C.vload([i, j, 0], "int32x4")
    for products in [low + high] if paired else [low, high]:
        total = total + T.call_llvm_pure_intrin(
            "int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products
        )
    T.buffer_store(C, total, [i, j, T.ramp(0, 1, 4)])


@cache
def neon_reduce() -> str:
    """Name of the intrinsic that sums 4 partial sums of 4 channels with three `addp`."""
    name = "mfn.neon_reduce_4x4"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4, 4), "int32", offset_factor=1)
        C = T.match_buffer(c, (4,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:4, 0:4])
            T.writes(C[0:4])
            for j in range(4):
                with T.sblock("sum"):
                    vj = T.axis.spatial(4, j)
                    C[vj] = A[vj, 0] + A[vj, 1] + A[vj, 2] + A[vj, 3]

    with IRBuilder() as builder, build_prim_func(s_tir=True):
        a, c = (T.arg(name, T.handle()) for name in "ac")
        A = T.match_buffer(a, (4, 4), "int32", offset_factor=1)
        C = T.match_buffer(c, (4,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:4, 0:4])
            T.writes(C[0:4])
            rows = [A.vload([j, 0], "int32x4") for j in range(4)]
            pairs = [_addp(rows[0], rows[1]), _addp(rows[2], rows[3])]
            T.buffer_store(C, _addp(*pairs), [T.ramp(0, 1, 4)])
    s_tir.TensorIntrin.register(name, description, builder.get(), override=True)
    return name


def _addp(a: Any, b: Any) -> Any:
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.addp.v4i32", a, b)


@cache
def avx2(rows: int) -> str:
    """Name of the tile [rows, 8] over 16 int16 values of `vpmaddwd` (x86 with AVX2)."""
    name = f"mfn.avx2_{rows}x8x16"
    shape = _Shape(
        dtype="int16",
        a=(rows, 16),
        w=(8, 8, 2),
        c=(rows, 8),
        spatial=(8,),
        reduce=(8, 2),
        places=lambda i, j, ko, ki: ((i, j), (i, ko * 2 + ki), (ko, j, ki)),
    )
    with IRBuilder() as builder, _operands(shape) as (A, W, C):
        for ko in range(8):
            weights = W.vload([ko, 0, 0], "int16x16")
            for i in range(rows):
                pair = T.reinterpret("int32", A.vload([i, ko * 2], "int16x2"))
                products = T.call_llvm_pure_intrin(
                    "int32x8",
                    "llvm.x86.avx2.pmadd.wd",
                    T.reinterpret("int16x16", tirx.Broadcast(pair, 8)),
                    weights,
                )
                total = C.vload([i, 0], "int32x8") + products
                T.buffer_store(C, total, [i, T.ramp(0, 1, 8)])
    s_tir.TensorIntrin.register(name, _description(shape), builder.get(), override=True)
    return name
