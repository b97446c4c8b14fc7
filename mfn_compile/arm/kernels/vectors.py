"""TensorIR expressions on AArch64's 128-bit registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

Expr = Any


def load(buffer: Any, at: Sequence[Any], lanes: int) -> Expr:
    """`lanes` neighbours from `at`."""
    return buffer.vload(list(at), f"{buffer.dtype}x{lanes}")


def splat(value: Expr, lanes: int) -> Expr:
    """`value` in every lane."""
    return tirx.Broadcast(value, lanes)


def half(value: Expr, upper: bool) -> Expr:
    """The lower or upper half of a vector's lanes."""
    dtype = str(value.expr_ty())
    base, lanes = dtype.split("x")
    part = T.vectorhigh if upper else T.vectorlow
    return part(value, dtype=f"{base}x{int(lanes) // 2}")


def join(low: Expr, high: Expr) -> Expr:
    """Both vectors behind each other."""
    lanes = 2 * int(str(low.expr_ty()).split("x")[1])
    return tirx.Shuffle([low, high], list(range(lanes)))


def narrowed(value: Expr) -> Expr:
    """int32x4 to int16x4, or int16x8 to int8x8, saturated: `sqxtn`."""
    before, after = {"int32x4": ("v4i16", "int16x4"), "int16x8": ("v8i8", "int8x8")}[
        str(value.expr_ty())
    ]
    return T.call_llvm_pure_intrin(after, f"llvm.aarch64.neon.sqxtn.{before}", value)


def even_halfwords(low: Expr, high: Expr) -> Expr:
    """The lower 16 bits of every lane of two int32x4, int16x8."""
    pair = [T.reinterpret("int16x8", value) for value in (low, high)]
    return tirx.Shuffle(pair, list(range(0, 16, 2)))


def nearest(value: Expr) -> Expr:
    """float32x4 to int32x4, half to even, saturated: `fcvtns`."""
    name = "llvm.aarch64.neon.fcvtns.v4i32.v4f32"
    return T.call_llvm_pure_intrin("int32x4", name, value)


def saturating_add(a: Expr, b: Expr) -> Expr:
    """The sum of two int16x8, saturated: `sqadd`."""
    return T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.sqadd.v8i16", a, b)


def products(a: Expr, b: Expr) -> Expr:
    """int8x8 times int8x8 as int16x8: `smull`."""
    return T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", a, b)


def dot(total: Expr, a: Expr, b: Expr) -> Expr:
    """int32x4 plus the sums of four neighbouring int8 products: `sdot`."""
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return T.call_llvm_pure_intrin("int32x4", name, total, a, b)


def zipped(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Lanes of a and b in turn: `zip1`, `zip2`."""
    lanes = int(str(a.expr_ty()).split("x")[1])
    order = [lane + side * lanes for lane in range(lanes) for side in (0, 1)]
    return tirx.Shuffle([a, b], order[:lanes]), tirx.Shuffle([a, b], order[lanes:])


def fenced(value: Expr) -> Expr:
    """`value`, rounded: LLVM fuses no multiplication with an addition across this."""
    return T.call_llvm_pure_intrin(str(value.expr_ty()), "llvm.arithmetic.fence", value)


def fused(a: Expr, b: Expr, c: Expr) -> Expr:
    """a times b plus c, rounded once: `fmla`."""
    return T.call_llvm_pure_intrin(str(a.expr_ty()), "llvm.fma", a, b, c)
