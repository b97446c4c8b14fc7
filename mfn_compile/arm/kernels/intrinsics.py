"""Tensor intrinsics: the multiply-accumulate tile of the matrix kernels on x86.

It adds a [rows, channels] block of products over 16 input channels to int32 accumulators.
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
