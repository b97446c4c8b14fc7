"""What happens to an int32 accumulator: the arithmetic of graph.py as TensorIR expressions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from mfn_compile.arm.graph import Conv, Requantize, Residual, ToFloat

Array = NDArray[Any]
Expr = Any


# 1.5 * 2**23: added to a float32 below 2**22 it rounds it half to even, and the sum's low bits are
# the rounded value; added to an integer below 2**22, as bits, it makes the float32 of the sum.
MAGIC = np.float32(12582912)
MAGIC_BITS = int(MAGIC.view(np.int32))
SMALL, EXACT, WORD = 2**22, 2**24, 2**15 - 256
# Added to an integer from 0 to 2**23, as bits, 2**23 makes the float32 of the sum; with a negative
# one it makes a float32 that is smaller than 2**23.
POSITIVE = np.float32(2**23)
POSITIVE_BITS = int(POSITIVE.view(np.int32))
FINITE = np.float32(2.0**104)  # times `POSITIVE`: a float32


@dataclass(frozen=True)
class Form:
    """Which shorter instruction sequences give the same bits, by what is known of the constants.

    Attributes:
        exact: sums without bias are below 2**22 and with it at most 2**24: adding the bits of
            `MAGIC` and subtracting `MAGIC` replaces `scvtf`.
        narrow: scaled values are below 2**15: adding `MAGIC` replaces `fcvtns`, and 16 bits hold
            the result, also once the zero point is added.
        shift: a zero point that all channels have, where it is even and the form is `narrow`:
            it is part of `MAGIC` then, and changes no rounding.
        shifted: another zero point is not 0.
        bounded: a bound is narrower than int8.
        small_sum: 16 bits hold the fused addition's sum, and its result is `narrow`.
        sum_shift, sum_shifted, sum_bounded: as above, of the fused addition.
        positive: `exact`, and sums below 0 end at the lower bound whatever they are: the sum's
            bits begin with those of `POSITIVE`, and one multiply-add takes that out again, exactly,
            since a power of two times the multiplier is a float32.
        byte_scales: 8 bits hold the fused addition's scales.
    """

    exact: bool = False
    narrow: bool = False
    shift: int = 0
    shifted: bool = True
    bounded: bool = True
    small_sum: bool = False
    sum_shift: int = 0
    sum_shifted: bool = True
    sum_bounded: bool = True
    positive: bool = False
    byte_scales: bool = False

    @property
    def tag(self) -> str:
        """For the kernel's name."""
        found = ""
        for letter, value in zip("enzybstucpl", vars(self).values(), strict=True):
            number = f"{abs(value)}{'m' if value < 0 else ''}" if type(value) is int else ""
            found += f"{letter}{number}" if value else ""
        return found


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
        form: of the instruction sequence on AArch64; None on other machines.
    """

    channels: int
    prelu: bool
    limits: int
    to_float: bool
    residual: int = 0
    residual_prelu: bool = False
    form: Form | None = None

    @property
    def tag(self) -> str:
        """For the kernel's name."""
        parts = ["f32" if self.to_float else "i8"]
        parts += ["prelu"] if self.prelu else []
        parts += ["perchannel"] if self.limits > 1 else []
        parts += ["add" if self.residual == 1 else "addc"] if self.residual else []
        parts += ["prelu"] if self.residual_prelu else []
        parts += [self.form.tag] if self.form and self.form.tag else []
        return "_".join(parts)

    def operands(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Constant operands in the order of the call: name to shape and dtype."""
        found: dict[str, tuple[tuple[int, ...], str]] = {
            "bias": ((self.channels,), "int32"),
            "multiplier": ((2 if self.prelu else 1, self.channels), "float32"),
            "limits": ((3, self.limits), "float32" if self.to_float else "int16"),
        }
        if self.form and self.form.exact:
            found["shift"] = ((self.channels,), "float32")
        if self.residual:
            found["add_scales"] = ((3, self.residual), "int32")
            found["add_limits"] = ((3, self.residual), "int16")
            found["add_floats"] = ((1 + self.residual_prelu, self.residual), "float32")
        return found


def shape_of(node: Conv, channels: int, *, vectors: bool) -> Epilogue:
    """The epilogue's shape of a convolution whose output is padded to `channels`.

    Args:
        vectors: for AArch64 (`registers.py`).
    """
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
        form=_form(node) if vectors else None,
    )


def _form(node: Conv) -> Form:
    stage = node.output_stage
    weight = np.abs(node.weight.astype(np.int64))
    products = 128 * weight.sum(axis=(0, 1) if node.depthwise else (1, 2, 3))
    largest = products + np.abs(node.bias.astype(np.int64))
    exact = bool((products < SMALL - 1).all() and (largest <= EXACT).all())
    if isinstance(stage, ToFloat):
        return Form(exact=exact, shifted=False, bounded=False)
    narrow = bool((largest * _steepest(stage) < WORD).all())
    shift, shifted = _shift(stage, narrow)
    positive = exact and _is_positive(stage) and bool((largest < 2 * SMALL).all())
    form = Form(exact, narrow, shift, shifted, _is_bounded(stage), positive=positive)
    if node.residual is None:
        return replace(form, sum_shifted=False, sum_bounded=False)
    small = has_small_sum(node.residual)
    shift, shifted = _shift(node.residual.output, small)
    return replace(
        form,
        small_sum=small,
        sum_shift=shift,
        sum_shifted=shifted,
        sum_bounded=_is_bounded(node.residual.output),
        byte_scales=small and _fit_bytes(node.residual.scale_a, node.residual.scale_b),
    )


def has_small_sum(residual: Residual) -> bool:
    """Whether 16 bits hold every sum of the addition, and its result before it is clipped."""
    parts = (residual.scale_a, residual.scale_b, residual.offset)
    a, b, offset = (np.abs(part.astype(np.int64)) for part in parts)
    largest = 128 * (a + b) + offset
    return bool((largest < WORD).all() and (largest * _steepest(residual.output) < WORD).all())


def _fit_bytes(*arrays: Array) -> bool:
    return all(bool((np.abs(array.astype(np.int64)) < 128).all()) for array in arrays)


def _steepest(stage: Requantize) -> Array:
    """The larger of both multipliers' magnitudes, float64 [C]."""
    rows = [stage.multiplier] if stage.negative is None else [stage.multiplier, stage.negative]
    found: Array = np.abs(np.stack(rows).astype(np.float64)).max(axis=0)
    return found


def _shift(stage: Requantize, narrow: bool) -> tuple[int, bool]:
    """The zero point for `MAGIC`, and whether another one is left to add."""
    first = int(stage.zero_point[0])
    if narrow and first % 2 == 0 and np.all(stage.zero_point == first):
        return first, False
    return 0, bool(np.any(stage.zero_point))


def _is_positive(stage: Requantize) -> bool:
    """Whether all sums up to 0 have the same result, as with ReLU, and `POSITIVE` times the
    multipliers is finite.
    """
    bent = stage.negative is not None
    fits = np.all((stage.multiplier >= 0) & (stage.multiplier < FINITE))
    return not bent and bool(fits and np.all(stage.low >= stage.zero_point))


def _is_bounded(stage: Requantize) -> bool:
    return bool(np.any(stage.low > -128) or np.any(stage.high < 127))


def constants_of(node: Conv, shape: Epilogue) -> dict[str, Array]:
    """The arrays of `shape.operands()`; padding channels compute zero."""
    stage, width = node.output_stage, shape.channels
    rows = [stage.multiplier] if stage.negative is None else [stage.multiplier, stage.negative]
    found: dict[str, Array] = {
        "bias": _pad(node.bias, width),
        "multiplier": np.stack([_pad(row, width) for row in rows]),
        "limits": _table(_limit_rows(stage), shape.limits),
    }
    if shape.form and shape.form.exact:
        if shape.form.positive:
            found |= _positive_bias(found["bias"], found["multiplier"][0])
        else:
            found |= _split_bias(found["bias"])
    if node.residual is not None:
        scales, limits, floats = residual_constants(node.residual, shape.residual)
        found |= {"add_scales": scales, "add_limits": limits, "add_floats": floats}
    return found


def _positive_bias(bias: Array, multiplier: Array) -> dict[str, Array]:
    """`bias` as what is added to the sum's bits, and what is added to their product."""
    return {
        "bias": (bias + POSITIVE_BITS).astype(np.int32),
        "shift": -POSITIVE * multiplier.astype(np.float32),
    }


def _split_bias(bias: Array) -> dict[str, Array]:
    """`bias` as what is added to the sum's bits and what is subtracted from their float32.

    MAGIC minus an even bias of at most 2**24 is below 2**25 and even: a float32.
    """
    odd = bias & 1
    shift = float(MAGIC) - (bias - odd).astype(np.float64)
    assert np.array_equal(shift.astype(np.float32), shift)
    return {"bias": (odd + MAGIC_BITS).astype(np.int32), "shift": shift.astype(np.float32)}


def residual_constants(residual: Residual, width: int) -> tuple[Array, Array, Array]:
    """int32 [3, width]: scale a, scale b, offset; int16 [3, width]: low, high, zero point;
    float32 [1 or 2, width]: the multiplier, and that of negative sums, where there is one.
    """
    rows = _residual_rows(residual)
    scales = _table([row.astype(np.int32) for row in rows[:3]], width)
    return scales, _table(rows[3:6], width), _table(rows[6:], width)


def residual_width(residual: Residual, channels: int) -> int:
    """1 where the addition is the same for all channels, else `channels`."""
    return _width(_residual_rows(residual), channels)


def _limit_rows(stage: Requantize | ToFloat) -> list[Array]:
    """Lower and upper bound of the result; zero point. int16, float32 without zero point."""
    if isinstance(stage, ToFloat):
        return [stage.low, stage.high, np.zeros_like(stage.low)]
    return [row.astype(np.int16) for row in (stage.low, stage.high, stage.zero_point)]


def _residual_rows(residual: Residual) -> list[Array]:
    out = residual.output
    return [
        residual.scale_a,
        residual.scale_b,
        residual.offset,
        *_limit_rows(out),
        out.multiplier,
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
    value = _bounded(scaled, limits, at)
    if not shape.residual:
        return value.astype("int8")
    here = channel if shape.residual > 1 else 0
    scales, sum_limits = operands["add_scales"], operands["add_limits"]
    return added(scales, sum_limits, operands["add_floats"], here, value, skip)


def added(scales: Any, limits: Any, floats: Any, at: Expr, a: Expr, b: Expr) -> Expr:
    """The residual sum of two values as int8; `a` int32 or int8, `b` int8."""
    total = a.astype("int32") * scales[0, at] + b.astype("int32") * scales[1, at] + scales[2, at]
    factor = floats[0, at]
    if int(floats.shape[0]) > 1:
        factor = tirx.Select(total < 0, floats[1, at], factor)
    return _bounded(total.astype("float32") * factor, limits, at).astype("int8")


def _bounded(scaled: Expr, limits: Any, at: Expr) -> Expr:
    low, high, zero = (limits[row, at].astype("float32") for row in range(3))
    return quantized(scaled, low - zero, high - zero, zero)


def quantized(scaled: Expr, low: Expr, high: Expr, zero_point: Expr) -> Expr:
    """Round half to even, clip, add the zero point; int32 (float conversion cannot overflow)."""
    rounded = tirx.call_llvm_pure_intrin("float32", "llvm.roundeven", scaled)
    return (clamp(rounded, low, high) + zero_point).astype("int32")


def clamp(value: Expr, low: Expr, high: Expr) -> Expr:
    """`value` within [low, high]."""
    return tirx.max(tirx.min(value, high), low)
