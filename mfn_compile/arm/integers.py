"""From scales and float biases to the integers of a layer, with the proof that nothing overflows.

All intermediate arithmetic is float64; what goes into the graph is rounded once.
"""

from __future__ import annotations

import numpy as np

from mfn_compile.arm.graph import Float32, Int8, Int32, Requantize, Residual, ToFloat
from mfn_compile.arm.steps import quantize
from mfn_compile.arm.values import Activation, Float64, Int64
from mfn_compile.errors import BadInputError
from mfn_compile.rounding import keeps_ties

LIMIT = 2**31
BIAS_BITS = 30
MANY = 2**16  # products of int8: so many cannot leave 31 bits
REFINEMENTS = 127
FINEST = 100  # exponent of the finest multiplier of a residual addition, 2**-100


def layer_integers(
    weight: Int64, unit: Float64, bias: Float64, zero: Int8, where: str
) -> tuple[Int8, Int32, Float64]:
    """Weights, bias and unit of a convolution as the graph wants them.

    Args:
        weight: [O, I/group, KH, KW]; unit, bias: [O], the unit may be negative or 0; where a
            channel's weights are all 0 a unit is chosen that divides the bias.
        zero: the input's zero points, [I].
        where: names the layer in errors.

    Returns:
        weight int8 [O, I/group, KH, KW], bias int32 [O] with the zero points folded in, unit > 0.

    Raises:
        BadInputError: an accumulator could leave int32.
    """
    column = (-1, 1, 1, 1)
    weight = np.where(unit.reshape(column) < 0, -weight, weight)
    weight = np.where(unit.reshape(column) == 0, 0, weight)
    unit = np.where((weight == 0).all(axis=(1, 2, 3)), _grid(bias), np.abs(unit))
    shift = _shift(weight, bias / unit)
    weight = np.rint(np.ldexp(weight.astype(np.float64), -shift.reshape(column))).astype(np.int64)
    unit = np.ldexp(unit, shift)
    depthwise = weight.shape[1] == 1 and len(zero) == weight.shape[0]
    offsets = zero.astype(np.int64).reshape(column if depthwise else (1, -1, 1, 1))
    total = np.rint(bias / unit) - (offsets * weight).sum(axis=(1, 2, 3))
    reach = np.abs(total) + 128.0 * np.abs(weight).sum(axis=(1, 2, 3))
    if reach.max() >= LIMIT:
        channel = int(reach.argmax())
        raise BadInputError(
            "an accumulator of the convolution could leave 32 bits",
            where=where,
            why=f"Output channel {channel} can reach {reach[channel]:.0f}",
            hint="quantize the network again with `mfn-compile quantize`",
        )
    return weight.astype(np.int8), total.astype(np.int32), unit


def _shift(weight: Int64, bias: Float64) -> Int64:
    """Powers of two [O] by which to coarsen the unit, below 0 to refine it.

    Coarser where weights leave int8 or the bias (in units) leaves 30 bits; finer where weights
    leave room in int8 and the bias is no whole number of units.
    """
    exponent = np.frexp(bias)[1]
    widest = np.abs(weight + 0.5).max(axis=(1, 2, 3))  # 127.5 for -128 and 127
    coarser = np.maximum(np.maximum(exponent - BIAS_BITS, widest > 128), 0)
    room = np.minimum(7 - np.ceil(np.log2(widest + 0.5)).astype(np.int64), BIAS_BITS - exponent)
    useful = (bias != np.rint(bias)) & (coarser == 0) & (weight[0].size < MANY)
    return np.asarray(np.where(useful, -np.maximum(room, 0), coarser), np.int64)


def check_bias(bias: Float64, unit: Float64, scale: Float32, where: str) -> None:
    """Refuse a bias that lies more than one step of the output from every whole accumulator.

    Raises:
        BadInputError: the input's scale is much coarser than the output's.
    """
    error = np.abs(bias / unit - np.rint(bias / unit)) * (unit / scale)
    if error.max() > 1:
        raise BadInputError(
            "the bias of the convolution is finer than its accumulator",
            where=where,
            why=f"Output channel {int(error.argmax())} would be off by {error.max():.1f} steps",
            hint="quantize the network again with `mfn-compile quantize`",
        )


def _grid(bias: Float64) -> Float64:
    """A power of two that divides a float32 bias, 1 where the bias is 0."""
    return np.where(bias == 0, 1.0, np.ldexp(1.0, np.frexp(bias)[1] - 24))


def requantize(
    unit: Float64, activation: Activation, scale: Float32, zero: Int8, where: str
) -> Requantize:
    """From accumulators of `unit` [C] through the activation to int8 of (scale, zero) [C].

    Raises:
        BadInputError: a multiplier is beyond float32.
    """
    ratio = unit / scale.astype(np.float64)
    return Requantize(
        multiplier=_float32(ratio, where),
        negative=_negative(ratio, activation.slope, where),
        zero_point=zero,
        low=quantize(activation.low, scale, zero),
        high=quantize(activation.high, scale, zero),
    )


def to_float(unit: Float64, activation: Activation, where: str) -> ToFloat:
    """From accumulators of `unit` [C] through the activation to float32."""
    negative = _negative(unit, activation.slope, where)
    return ToFloat(_float32(unit, where), negative, activation.low, activation.high)


def _negative(unit: Float64, slope: Float32 | None, where: str) -> Float32 | None:
    return None if slope is None else _float32(unit * slope.astype(np.float64), where)


def _float32(values: Float64, where: str) -> Float32:
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise BadInputError(
            "the scales around the layer differ beyond float32",
            where=where,
            hint="quantize the network again with `mfn-compile quantize`",
        )
    return result


def residual(
    scales: tuple[Float32, Float32],
    zeros: tuple[Int8, Int8],
    activation: Activation,
    output: tuple[Float32, Int8],
    where: str,
) -> Residual:
    """Addition of int8 tensors a and b; scales and zeros [C], `output` is (scale, zero).

    Scales that are small multiples of one power of two stay exact; others are rounded to the
    finest fixed point that cannot overflow.
    """
    scale, zero = output
    a, b = (s.astype(np.float64) for s in scales)
    unit = np.ldexp(1.0, np.minimum(_lowest_bit(a), _lowest_bit(b)))
    unit = unit / _faithful(unit / scale, _reach(a / unit, b / unit, zeros))
    exact = _reach(a / unit, b / unit, zeros) < LIMIT
    ratios = a / scale, b / scale
    power = _finest(*ratios, zeros)
    fixed = [np.rint(np.ldexp(r, power)) for r in ratios]
    scale_a, scale_b = (np.where(exact, s / unit, f) for s, f in zip((a, b), fixed, strict=True))
    unit = np.where(exact, unit, np.ldexp(scale.astype(np.float64), -power))
    offset = -(zeros[0] * scale_a + zeros[1] * scale_b)
    return Residual(
        scale_a.astype(np.int32),
        scale_b.astype(np.int32),
        offset.astype(np.int32),
        requantize(unit, activation, scale, zero, where),
    )


def _faithful(ratio: Float64, reach: Float64) -> Float64:
    """Factors [C], the smallest by which the unit must be refined so that ties stay ties."""
    factor = np.ones(ratio.shape)
    for candidate in range(REFINEMENTS, 0, -2):
        good = keeps_ties(ratio / candidate) & (reach * candidate < 2**24)
        factor = np.where(good, candidate, factor)
    return factor


def _lowest_bit(values: Float64) -> Int64:
    """Exponent of the lowest set bit of float32 values above 0."""
    mantissa, exponent = np.frexp(values)
    integer = np.ldexp(mantissa, 24).astype(np.int64)
    lowest = np.log2(integer & -integer).astype(np.int64)
    return np.asarray(exponent - 24 + lowest, np.int64)


def _reach(a: Float64, b: Float64, zeros: tuple[Int8, Int8]) -> Float64:
    """A bound of |a*x + b*y + offset|, with a factor of two to spare for the products."""
    offset = np.abs(zeros[0] * a + zeros[1] * b)
    return 256.0 * (np.abs(a) + np.abs(b)) + offset


def _finest(a: Float64, b: Float64, zeros: tuple[Int8, Int8]) -> Int64:
    """The largest power [C] with which the rounded scales a*2**power, b*2**power fit."""
    power = np.minimum(31 - np.frexp(_reach(a, b, zeros))[1] + 1, FINEST).astype(np.int64)
    for _ in range(4):
        rounded = np.rint(np.ldexp(a, power)), np.rint(np.ldexp(b, power))
        power = power - (_reach(*rounded, zeros) >= LIMIT)
    return np.asarray(power, np.int64)
