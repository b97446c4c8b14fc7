"""Cycles of a kernel predicted from its knobs, learnt from the kernels of one family together.

Two parts: ridge regression over the knobs, their pairs and their products with the log2 of the
shape's sizes, shared by the family; and what is left over, interpolated between the measured points
of one kernel by a Gaussian process over the number of knobs that differ (Rasmussen and Williams,
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

RIDGE = 0.05
UNLIKE = 0.6  # correlation of two points that differ in one knob
LEAST_DEVIATION = 0.05  # 5 %: what an unmeasured point may be off at least
FAILED = math.log(2.0)  # a failed point counts as twice as slow
DIGITS = 6  # differences between linear algebra libraries do not reach the search


@dataclass
class _Kernel:
    """What was measured of one kernel."""

    points: list[Point] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)


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
        known = self._kernels[kernel]
        mean = self._family(kernel, points)
        if not known.points:
            return mean.round(DIGITS), np.full(len(points), LEAST_DEVIATION)
        measured = np.array(known.points, dtype=np.int64)
        left = np.array(known.targets) - self._family(kernel, measured)
        deviation = max(LEAST_DEVIATION, float(left.std()))
        factor = cho_factor(_alike(measured, measured) + 1e-6 * np.eye(len(measured)))
        across = _alike(points, measured)
        mean = mean + across @ cho_solve(factor, left)
        explained = np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
        doubt = deviation * np.sqrt(np.clip(1.0 - explained, 0.0, 1.0))
        return mean.round(DIGITS), doubt.round(DIGITS)

    def _family(self, kernel: str, points: Integers) -> Floats:
        if self._weights is None:
            self._weights = solve(self._gram, self._moment, assume_a="pos")
        found: Floats = self._columns.rows(kernel, points) @ self._weights
        return found


def _alike(left: Integers, right: Integers) -> Floats:
    """Correlation of points, float64 [left, right]."""
    unlike = (left[:, None, :] != right[None, :, :]).sum(axis=2)
    found: Floats = np.power(UNLIKE, unlike, dtype=np.float64)
    return found
