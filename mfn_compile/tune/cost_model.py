"""Cycles of a kernel predicted from its knobs, learnt from the kernels of one family together.

Two parts: ridge regression over the knobs, their pairs and their products with the log2 of the
shape's sizes, shared by the family; and what is left over, interpolated between the measured points
of one kernel by a Gaussian process over the distance of knobs (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, eq. 2.23 to 2.26).

The target is log(cycles / cycles of the kernel's first knobs), natural logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve

from mfn_compile.tune.columns import Columns, Floats, Integers
from mfn_compile.tune.task import Point, Task

RIDGE = 2.0
UNLIKE = 0.6  # correlation of two points at distance 1
PRIOR_DEVIATION, BELIEF = 0.3, 8.0  # how far off predictions are thought to be, as of 8 points
FAILED = math.log(2.0)  # a failed point counts as twice as slow
NOISE = 1e-6  # keeps the factorization stable; cycles are counted, not sampled
DIGITS = 6  # differences between linear algebra libraries do not reach the search


@dataclass(frozen=True)
class _Interpolation:
    """The Gaussian process of one kernel, good until the family's weights change.

    Attributes:
        weights: the family's weights that it starts from.
        measured: int64 [n, knobs].
        factor: Cholesky factor of the correlation of the measured points.
        pull: float64 [n], what each measured point adds to points like it.
        deviation: of what the family's weights leave over.
    """

    weights: Floats
    measured: Integers
    factor: tuple[Floats, bool]
    pull: Floats
    deviation: float


@dataclass
class _Kernel:
    """What was measured of one kernel."""

    points: list[Point] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    interpolation: _Interpolation | None = None


class CostModel:
    """Predicts the kernels of one family."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._columns = Columns(tasks)
        self._kernels = {task.key: _Kernel() for task in tasks}
        self._gram: Floats = RIDGE * np.eye(self._columns.width)
        self._moment: Floats = np.zeros(self._columns.width)
        self._weights: Floats | None = None

    def add(self, kernel: str, points: Sequence[Point], targets: Sequence[float]) -> None:
        """Learn measured points; `targets` as the module says, FAILED where one failed."""
        known = self._kernels[kernel]
        known.points.extend(points)
        known.targets.extend(targets)
        rows = self._columns.rows(kernel, np.array(points, dtype=np.int64))
        self._gram += rows.T @ rows
        self._moment += rows.T @ np.array(targets)
        self._weights = None

    def predict(self, kernel: str, points: Integers) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the target, float64 [n], of `points`, int64 [n, knobs]."""
        weights = self._fitted()
        mean: Floats = self._columns.rows(kernel, points) @ weights
        if not self._kernels[kernel].points:
            return mean.round(DIGITS), np.full(len(points), PRIOR_DEVIATION)
        around = self._interpolation(kernel, weights)
        across = self._alike(kernel, points, around.measured)
        mean = mean + across @ around.pull
        explained = np.einsum("ij,ji->i", across, cho_solve(around.factor, across.T))
        doubt = around.deviation * np.sqrt(np.clip(1.0 - explained, 0.0, 1.0))
        return mean.round(DIGITS), doubt.round(DIGITS)

    def _fitted(self) -> Floats:
        if self._weights is None:
            self._weights = solve(self._gram, self._moment, assume_a="pos")
        return self._weights

    def _interpolation(self, kernel: str, weights: Floats) -> _Interpolation:
        known = self._kernels[kernel]
        if known.interpolation is None or known.interpolation.weights is not weights:
            measured = np.array(known.points, dtype=np.int64)
            left = np.array(known.targets) - self._columns.rows(kernel, measured) @ weights
            factor = cho_factor(
                self._alike(kernel, measured, measured) + NOISE * np.eye(len(measured))
            )
            surprise = BELIEF * PRIOR_DEVIATION**2 + float(left @ left)
            deviation = math.sqrt(surprise / (BELIEF + len(left)))
            pull = cho_solve(factor, left)
            known.interpolation = _Interpolation(weights, measured, factor, pull, deviation)
        return known.interpolation

    def _alike(self, kernel: str, left: Integers, right: Integers) -> Floats:
        """Correlation of points, float64 [left, right]."""
        found: Floats = UNLIKE ** self._columns.distance(kernel, left, right)
        return found
