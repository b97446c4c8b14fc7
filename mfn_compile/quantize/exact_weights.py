"""Weights of one convolution on the exact grid: the least noise whose sums cannot round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.quantize.sweep import Taps
from mfn_compile.rounding import keeps_ties

WEIGHT_BITS = 5
LARGEST_SUM = 2.0**24  # integers up to here are exact in float32
RATIOS = np.concatenate([np.linspace(0.7, 1.3, 61), [1.5, 2.0]])  # of the file's weight scale
DOUBLINGS = 8  # of a scale, until the sums are exact
LARGEST_BIAS = 2.0**20  # in units of its accumulator: leaves room for the sum and both mantissas
SMALLEST_UNIT = 2.0**-60  # of an accumulator: far from float32's subnormal numbers
FLAT = 1e-9  # share of the largest variance that a constant input is given
Doubles = NDArray[np.float64]


def shorten(values: NDArray[Any] | float, bits: int) -> Doubles:
    """Nearest numbers whose mantissa has at most `bits` significant bits; half to even."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits), np.float64)


def odd_part(values: NDArray[Any] | float) -> Doubles:
    """The odd integer m of v = m 2^e, v > 0."""
    mantissa = np.ldexp(np.frexp(np.asarray(values, np.float64))[0], 53).astype(np.int64)
    return np.asarray(mantissa // (mantissa & -mantissa), np.float64)


@dataclass(frozen=True, eq=False)
class Weights:
    """Integers [O, I, kh, kw] and a scale for each output channel [O]."""

    integers: Doubles
    scale: Doubles

    @property
    def values(self) -> Doubles:
        """What they stand for."""
        return np.asarray(self.integers * column(self.scale), np.float64)


@dataclass(frozen=True, eq=False)
class Problem:
    """What decides the weights of one convolution.

    Attributes:
        name: of the convolution.
        old: the file's weights.
        target: the float weights that they round.
        step: activation scale that meets each output channel, [O].
        low, high: what the activation's integers, less their zero point, can be; broadcast over
            the integers of the weights.
        taps: what meets the weights, [O or 1, I, kh, kw].
        wanted: mean output of each channel, [O].
        output: scale of the quantizer behind it, [O]; 1 where there is none.
    """

    name: str
    old: Weights
    target: Doubles
    step: Doubles
    low: Doubles
    high: Doubles
    taps: Taps
    wanted: Doubles
    output: Doubles

    def rounded(self, scale: Doubles) -> Weights:
        """The float weights on the grid of `scale`, with the file's largest level as limit.

        A file that goes down to -2^k, the end of an integer range, goes up to 2^k - 1.
        """
        top = np.abs(self.old.integers).max()
        high = top - 1 if top in (64, 128) else top
        return Weights(np.clip(np.rint(self.target / column(scale)), -top, high), scale)

    def noise(self, weights: Weights) -> Doubles:
        """Variance of each output channel's error, inputs taken as uncorrelated."""
        floor = FLAT * max(self.taps.variance.max(), 1e-30)
        error = np.square(weights.values - self.target) * np.maximum(self.taps.variance, floor)
        return np.asarray(error.sum(axis=(1, 2, 3)), np.float64)

    def bias(self, weights: Weights) -> Doubles:
        """The float bias that gives every channel its wanted mean: b_o = y_o - sum w_oi E[x_i]."""
        means = (weights.values * self.taps.mean).sum(axis=(1, 2, 3))
        return np.asarray(self.wanted - means, np.float64)

    def integer_bias(self, weights: Weights) -> Doubles:
        """The bias as an integer accumulator starts with it, in units of s_a s_w."""
        unit = self.step * weights.scale
        return np.asarray(np.rint(self.bias(weights) / unit), np.float64)

    def is_exact(self, weights: Weights) -> NDArray[np.bool_]:
        """Whether no sum of an output channel can round, and ties are rounded as by a division.

        No image at all may bring a sum above 2^24 of its grid.

        The positive products and a positive bias add up to the largest partial sum of any order,
        the negative ones to the lowest.
        """
        bias = self.integer_bias(weights)
        ends = (weights.integers * self.low, weights.integers * self.high)
        above = np.maximum(*ends).clip(min=0).sum(axis=(1, 2, 3)) + np.maximum(bias, 0)
        below = np.minimum(*ends).clip(max=0).sum(axis=(1, 2, 3)) + np.minimum(bias, 0)
        longest = odd_part(self.step) * odd_part(weights.scale)
        short = np.maximum(above, -below) * longest <= LARGEST_SUM
        # An integer kernel multiplies by the ratio that a QDQ file divides by.
        return np.asarray(short & keeps_ties(self.step * weights.scale / self.output), np.bool_)


def best_weights(problem: Problem) -> Weights:
    """The least noise of every output channel, over scales of few bits whose sums are exact.

    Raises:
        InternalCheckError: an output channel fits no grid, or `target` is another network's.
    """
    _check_target(problem)
    start = _start(problem)
    best, least = problem.rounded(start), np.full(len(start), np.inf)
    scales = {
        shorten(start * ratio, bits).tobytes(): shorten(start * ratio, bits)
        for bits in range(1, WEIGHT_BITS + 1)
        for ratio in RATIOS
    }
    for doubling in range(DOUBLINGS):
        for scale in scales.values():
            found = problem.rounded(scale * 2.0**doubling)
            noise = np.where(problem.is_exact(found), problem.noise(found), np.inf)
            better = noise < least
            least = np.where(better, noise, least)
            best = Weights(
                np.where(column(better), found.integers, best.integers),
                np.where(better, found.scale, best.scale),
            )
        if np.isfinite(least).all():
            return best
    raise InternalCheckError("The sums of a convolution fit no exact grid", where=problem.name)


def _start(problem: Problem) -> Doubles:
    """The file's scales; larger for a dead channel, whose bias would fill an accumulator."""
    bias = np.abs(problem.bias(problem.old))
    least = np.maximum(bias / LARGEST_BIAS, SMALLEST_UNIT) / problem.step
    return np.maximum(problem.old.scale, least)


def _check_target(problem: Problem) -> None:
    """Refuse float weights that are not those the file rounds: they would take their place."""
    integers = problem.old.integers
    levels = problem.target / column(problem.old.scale)
    inside = np.abs(integers) < np.abs(integers).max() - 1  # the others may have been clipped
    if np.any(np.abs(levels - integers)[inside] > 2):
        raise InternalCheckError(
            "The float weights are not those that the QDQ file rounds", where=problem.name
        )


def column(values: NDArray[Any]) -> NDArray[Any]:
    """A value an output channel, in the shape of weights."""
    return values[:, None, None, None]
