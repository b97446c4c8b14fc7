"""The epilogue on AArch64's registers: four int32x4 sums become 16 int8 values at a time.

The same bits as `epilogue.finish`, by the sequences that a `Form` allows. Saturation does the
clipping: rounded values saturate to 16 bits, the zero point is added there, and the sum saturates
to int8. Where that is the whole clip, no minimum or maximum is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mfn_compile.arm.kernels.epilogue import MAGIC, MAGIC_BITS, Epilogue, clamp
from mfn_compile.arm.kernels.vectors import (
    even_halfwords,
    fenced,
    fused,
    half,
    join,
    load,
    narrowed,
    nearest,
    saturating_add,
    splat,
)

Expr = Any
GROUP = 4  # sums of 4 lanes that end in one register of int8


@dataclass(frozen=True)
class Sums:
    """An int32x4 of neighbouring channels from `channel`; `biased` where its bias is in it."""

    value: Expr
    channel: Expr
    biased: bool = False


def to_floats(shape: Epilogue, operands: dict[str, Any], sums: Sums) -> Expr:
    """The float32x4 result of a layer that ends in float."""
    limits = [_parameter(operands["limits"], row, shape.limits, sums.channel) for row in (0, 1)]
    return clamp(_scaled(shape, operands, sums), *limits)


def to_bytes(
    shape: Epilogue, operands: dict[str, Any], group: Sequence[Sums], skip: Expr = None
) -> Expr:
    """int8x16 of four sums; `skip` is the residual's int8x16."""
    assert shape.form is not None
    form, channels = shape.form, [sums.channel for sums in group]
    scaled = [_scaled(shape, operands, sums) for sums in group]
    limits = _Limits(operands["limits"], shape.limits, form.shift, form.shifted, form.bounded)
    value = _rounded(scaled, channels, limits, narrow=form.narrow)
    if not shape.residual:
        return value
    sums_of = _small_sums if form.small_sum else _wide_sums
    totals = sums_of(operands["add_scales"], shape.residual, channels, value, skip)
    floats = operands["add_floats"]
    scaled = [
        _times(total, [_parameter(floats, row, shape.residual, at) for row in range(rows)])
        for rows in [1 + shape.residual_prelu]
        for total, at in zip(totals, channels, strict=True)
    ]
    limits = _Limits(
        operands["add_limits"],
        shape.residual,
        form.sum_shift,
        form.sum_shifted,
        form.sum_bounded,
    )
    return _rounded(scaled, channels, limits, narrow=form.small_sum)


@dataclass(frozen=True)
class _Limits:
    """int16 [3, width]: low, high, zero point; and which of them change anything (see `Form`)."""

    table: Any
    width: int
    shift: int
    shifted: bool
    bounded: bool

    def row(self, index: int, channels: Sequence[Expr]) -> Expr:
        """int16x8 for two groups of channels."""
        return _parameter_pair(self.table, index, self.width, channels)


def _scaled(shape: Epilogue, operands: dict[str, Any], sums: Sums) -> Expr:
    """float32(sum + bias) times its multiplier, one rounding each."""
    assert shape.form is not None
    at = sums.channel
    total = sums.value if sums.biased else sums.value + load(operands["bias"], [at], 4)
    if shape.form.positive:
        start, factor = load(operands["shift"], [at], 4), load(operands["multiplier"], [0, at], 4)
        return fused(T.reinterpret("float32x4", total), factor, start)
    if shape.form.exact:
        value = T.reinterpret("float32x4", total) - load(operands["shift"], [at], 4)
    else:
        value = total.astype("float32x4")
    rows = range(1 + shape.prelu)
    return _times(value, [load(operands["multiplier"], [row, at], 4) for row in rows])


def _times(value: Expr, factors: Sequence[Expr]) -> Expr:
    """`value` times the first factor, or where it is negative times the second, if there is one."""
    if len(factors) == 1:
        return value * factors[0]
    return value * tirx.Select(value < splat(T.float32(0), 4), factors[1], factors[0])


def _rounded(
    scaled: Sequence[Expr], channels: Sequence[Expr], limits: _Limits, *, narrow: bool
) -> Expr:
    """Round half to even, add the zero point, clip: int8x16."""
    found = []
    for at in (0, 2):
        pair, here = scaled[at : at + 2], channels[at : at + 2]
        if narrow:
            magic = splat(T.float32(float(MAGIC) + limits.shift), 4)
            value = even_halfwords(*(fenced(part) + magic for part in pair))
        else:
            value = join(*(narrowed(nearest(part)) for part in pair))
        if limits.shifted:
            zero = limits.row(2, here)
            value = value + zero if narrow else saturating_add(value, zero)
        if limits.bounded:
            value = tirx.max(tirx.min(value, limits.row(1, here)), limits.row(0, here))
        found.append(narrowed(value))
    return join(*found)


def _small_sums(scales: Any, width: int, channels: Sequence[Expr], a: Expr, b: Expr) -> list[Expr]:
    """The addition's sums in 16 bits, as float32x4."""
    found = []
    for upper in (False, True):
        here = channels[2 * upper : 2 * upper + 2]
        rows = [_parameter_pair(scales, row, width, here).astype("int16x8") for row in range(3)]
        wide = [half(value, upper).astype("int16x8") for value in (a, b)]
        total = wide[0] * rows[0] + wide[1] * rows[1] + rows[2]
        for part in (half(total, False), half(total, True)):
            bits = part.astype("int32x4") + splat(T.int32(MAGIC_BITS), 4)
            found.append(T.reinterpret("float32x4", bits) - splat(T.float32(float(MAGIC)), 4))
    return found


def _wide_sums(scales: Any, width: int, channels: Sequence[Expr], a: Expr, b: Expr) -> list[Expr]:
    """The addition's sums in 32 bits, as float32x4."""
    found = []
    for index, at in enumerate(channels):
        rows = [_parameter(scales, row, width, at) for row in range(3)]
        wide = [half(half(value, index > 1), bool(index % 2)) for value in (a, b)]
        total = wide[0].astype("int32x4") * rows[0] + wide[1].astype("int32x4") * rows[1] + rows[2]
        found.append(total.astype("float32x4"))
    return found


def _parameter(table: Any, row: int, width: int, channel: Expr) -> Expr:
    """Four lanes of a row that has one value for all channels, or one a channel."""
    if width == 1:
        return splat(table[row, 0], 4)
    return load(table, [row, channel], 4)


def _parameter_pair(table: Any, row: int, width: int, channels: Sequence[Expr]) -> Expr:
    if width == 1:
        return splat(table[row, 0], 8)
    return join(*(load(table, [row, channel], 4) for channel in channels))
