"""What happens to an int32 accumulator: the arithmetic of graph.py as TensorIR expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from mfn_compile.arm.graph import Conv, Requantize, Residual, ToFloat

Array = NDArray[Any]
Expr = Any


@dataclass(frozen=True)
class Epilogue:
    """Shape of an epilogue; kernels of equal shape share their code.

    Attributes:
        channels: of the output, padded.
        prelu: negative accumulators have a multiplier of their own.
        limits: 1 where bounds and zero point are the same for all channels, else `channels`.
        to_float: the result is float32.
        residual: 0 without a fused addition, else its parameters a channel: 1 or `channels`.
        residual_prelu: negative sums of the addition have a multiplier of their own.
    """

    channels: int
    prelu: bool
    limits: int
    to_float: bool
    residual: int = 0
    residual_prelu: bool = False

    @property
    def tag(self) -> str:
        """For the kernel's name."""
        parts = ["f32" if self.to_float else "i8"]
        parts += ["prelu"] if self.prelu else []
        parts += ["perchannel"] if self.limits > 1 else []
        parts += ["add" if self.residual == 1 else "addc"] if self.residual else []
        parts += ["prelu"] if self.residual_prelu else []
        return "_".join(parts)

    def operands(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Constant operands in the order of the call: name to shape and dtype."""
        found: dict[str, tuple[tuple[int, ...], str]] = {
            "bias": ((self.channels,), "int32"),
            "multiplier": ((2 if self.prelu else 1, self.channels), "float32"),
            "limits": ((3, self.limits), "float32"),
        }
        if self.residual:
            found["add_scales"] = ((3, self.residual), "int32")
            found["add_floats"] = ((4 + self.residual_prelu, self.residual), "float32")
        return found


def shape_of(node: Conv, channels: int) -> Epilogue:
    """The epilogue's shape of a convolution whose output is padded to `channels`."""
    stage = node.output_stage
    residual = 0
    if node.residual is not None:
        residual = _width(_residual_rows(node.residual), channels)
    return Epilogue(
        channels=channels,
        prelu=stage.negative is not None,
        limits=_width(_limit_rows(stage), channels),
        to_float=isinstance(stage, ToFloat),
        residual=residual,
        residual_prelu=node.residual is not None and node.residual.output.negative is not None,
    )


def constants_of(node: Conv, shape: Epilogue) -> dict[str, Array]:
    """The arrays of `shape.operands()`; padding channels compute zero."""
    stage, width = node.output_stage, shape.channels
    rows = [stage.multiplier] if stage.negative is None else [stage.multiplier, stage.negative]
    found: dict[str, Array] = {
        "bias": _pad(node.bias, width),
        "multiplier": np.stack([_pad(row, width) for row in rows]),
        "limits": _table(_limit_rows(stage), shape.limits),
    }
    if node.residual is not None:
        scales, floats = residual_constants(node.residual, shape.residual)
        found |= {"add_scales": scales, "add_floats": floats}
    return found


def residual_constants(residual: Residual, width: int) -> tuple[Array, Array]:
    """int32 [3, width]: scale a, scale b, offset; float32 [4 or 5, width]: multiplier, limits.

    The fifth row is the multiplier of negative sums, where there is one.
    """
    rows = _residual_rows(residual)
    scales = _table([row.astype(np.int32) for row in rows[:3]], width)
    return scales, _table(rows[3:], width)


def residual_width(residual: Residual, channels: int) -> int:
    """1 where the addition is the same for all channels, else `channels`."""
    return _width(_residual_rows(residual), channels)


def _limit_rows(stage: Requantize | ToFloat) -> list[Array]:
    """Lower and upper bound of the rounded value before the zero point is added; zero point."""
    if isinstance(stage, ToFloat):
        return [stage.low, stage.high, np.zeros_like(stage.low)]
    zero = stage.zero_point.astype(np.float32)
    return [stage.low - zero, stage.high - zero, zero]


def _residual_rows(residual: Residual) -> list[Array]:
    out = residual.output
    return [
        residual.scale_a,
        residual.scale_b,
        residual.offset,
        out.multiplier,
        *_limit_rows(out),
        *([] if out.negative is None else [out.negative]),
    ]


def _width(rows: list[Array], channels: int) -> int:
    return 1 if all(np.all(row == row.flat[0]) for row in rows) else channels


def _table(rows: list[Array], width: int) -> Array:
    if width == 1:
        return np.stack([row[:1] for row in rows])
    return np.stack([_pad(row, width) for row in rows])


def _pad(row: Array, width: int) -> Array:
    return np.pad(row, (0, width - len(row)))


def finish(shape: Epilogue, operands: dict[str, Any], acc: Expr, channel: Expr, skip: Expr) -> Expr:
    """The output value of an accumulator without bias; `skip` is the residual's int8 value."""
    limits = operands["limits"]
    at = channel if shape.limits > 1 else 0
    biased = acc + operands["bias"][channel]
    factor = operands["multiplier"][0, channel]
    if shape.prelu:
        factor = tirx.Select(biased < 0, operands["multiplier"][1, channel], factor)
    scaled = biased.astype("float32") * factor
    if shape.to_float:
        return clamp(scaled, limits[0, at], limits[1, at])
    value = quantized(scaled, limits[0, at], limits[1, at], limits[2, at])
    if not shape.residual:
        return value.astype("int8")
    here = channel if shape.residual > 1 else 0
    return added(operands["add_scales"], operands["add_floats"], here, value, skip)


def added(scales: Any, floats: Any, at: Expr, a: Expr, b: Expr) -> Expr:
    """The residual sum of two values as int8; `a` int32 or int8, `b` int8."""
    total = a.astype("int32") * scales[0, at] + b.astype("int32") * scales[1, at] + scales[2, at]
    factor = floats[0, at]
    if int(floats.shape[0]) > 4:
        factor = tirx.Select(total < 0, floats[4, at], factor)
    scaled = total.astype("float32") * factor
    return quantized(scaled, floats[1, at], floats[2, at], floats[3, at]).astype("int8")


def quantized(scaled: Expr, low: Expr, high: Expr, zero_point: Expr) -> Expr:
    """Round half to even, clip, add the zero point; int32 (float conversion cannot overflow)."""
    rounded = tirx.call_llvm_pure_intrin("float32", "llvm.roundeven", scaled)
    return (clamp(rounded, low, high) + zero_point).astype("int32")


def clamp(value: Expr, low: Expr, high: Expr) -> Expr:
    """`value` within [low, high]."""
    return tirx.max(tirx.min(value, high), low)
