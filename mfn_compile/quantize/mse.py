"""Search of the quantization range with the least squared error. Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
BINS = 2048
SHRINKS = np.linspace(0.3, 1.0, 36)  # shares of the full range that are tried on either side


@dataclass(frozen=True)
class Histogram:
    """Counts over [low, high] in BINS equal bins."""

    low: float
    high: float
    counts: Doubles

    @property
    def centres(self) -> Doubles:
        """Middle of every bin."""
        width = (self.high - self.low) / len(self.counts)
        steps = np.arange(len(self.counts), dtype=np.float64) + 0.5
        return np.asarray(self.low + width * steps, np.float64)


@dataclass(frozen=True)
class Grid:
    """Integers that a quantizer can take: zero_point is where real zero lies."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    def round_trip(self, values: Doubles) -> Doubles:
        """Quantize and dequantize as QDQ does: half to even, saturating."""
        levels = np.rint(values / self.scale) + self.zero_point
        kept: Doubles = np.clip(levels, self.lowest, self.highest)
        return (kept - self.zero_point) * self.scale


def squared_error(histogram: Histogram, grid: Grid) -> float:
    """Mean squared error of `grid` on the bin centres, weighted by their counts."""
    centres = histogram.centres
    error = (grid.round_trip(centres) - centres) ** 2
    return float((error * histogram.counts).sum() / max(histogram.counts.sum(), 1.0))


def symmetric_grid(limit: float, *, signed: bool) -> Grid:
    """Zero point 0: [-limit, limit] in int8 or [0, limit] in uint8."""
    lowest, highest = (-128, 127) if signed else (0, 255)
    return Grid(limit / highest, 0, lowest, highest)


def affine_grid(low: float, high: float) -> Grid:
    """uint8 over [low, high], widened to hold 0, with 0 exactly on a level."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    return Grid(scale, int(np.clip(np.rint(-low / scale), 0, 255)), 0, 255)


def best_symmetric(histogram: Histogram, *, signed: bool) -> Grid:
    """Least squared error over limits; the full range is one of them."""
    full = max(abs(histogram.low), abs(histogram.high)) if signed else histogram.high
    candidates = [symmetric_grid(full * share, signed=signed) for share in SHRINKS]
    return _best(histogram, candidates)


def best_affine(histogram: Histogram) -> Grid:
    """Least squared error over both ends, alternating; the full range is the start."""
    low_share = high_share = 1.0
    for _ in range(3):
        grids = [affine_grid(histogram.low * low_share, histogram.high * s) for s in SHRINKS]
        high_share = float(SHRINKS[_index(histogram, grids)])
        grids = [affine_grid(histogram.low * s, histogram.high * high_share) for s in SHRINKS]
        low_share = float(SHRINKS[_index(histogram, grids)])
    return affine_grid(histogram.low * low_share, histogram.high * high_share)


def _best(histogram: Histogram, grids: list[Grid]) -> Grid:
    return grids[_index(histogram, grids)]


def _index(histogram: Histogram, grids: list[Grid]) -> int:
    errors = [squared_error(histogram, grid) for grid in grids]
    return len(errors) - 1 - int(np.argmin(errors[::-1]))  # ties go to the wider range
