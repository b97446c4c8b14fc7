"""Points of a family's kernels as rows of a regression.

Columns, each group with its scale (a smaller one makes ridge regression trust the group later):
one for every value of every knob; these times the log2 of each of the shape's sizes; products of
two knobs that are numbers, over their log2; one for every pair of values of two knobs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mfn_compile.tune.task import Knob, Task, Value

SHAPED, NUMERIC, PAIRED = 0.5, 0.5, 0.3
FARTHEST = 2.0  # doublings; numbers farther apart say as little about each other
MAX_COLUMNS = 1200  # pairs are left out where the normal equations would take too long

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Kernel:
    values: tuple[Integers, ...]  # by knob: column of each of its values
    numbers: tuple[tuple[int, int, Floats], ...]  # number of the name, knob, log2 of its values
    steps: tuple[Floats, ...]  # by knob: distance of its values
    features: Floats  # log2 of the sizes, standardized over the family


class Columns:
    """The columns of one family."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        knobs = list(itertools.chain.from_iterable(task.knobs for task in tasks))
        self._values = _value_columns(knobs)
        numbers = [knob for knob in knobs if _is_number(knob)]
        names = sorted({knob.name for knob in numbers})
        features = _standard(np.array([task.features for task in tasks], dtype=np.float64))
        self._kernels = {
            task.key: _Kernel(
                tuple(np.array([self._values[k.name, v] for v in k.values]) for k in task.knobs),
                tuple(
                    (names.index(knob.name), place, _numbers(knob, numbers))
                    for place, knob in enumerate(task.knobs)
                    if _is_number(knob)
                ),
                tuple(_steps(knob) for knob in task.knobs),
                features[i],
            )
            for i, task in enumerate(tasks)
        }
        self._numeric = len(self._values) * (1 + features.shape[1])
        self._names = len(names)
        self._paired = self._numeric + len(names) ** 2
        self._pairs = _pair_columns([k.values for k in self._kernels.values()], len(self._values))
        width = self._paired + int(self._pairs.max(initial=-1)) + 1
        self._with_pairs = width <= MAX_COLUMNS
        self.width = width if self._with_pairs else self._paired

    def rows(self, key: str, points: Integers) -> Floats:
        """Rows, float64 [n, width], of a kernel's points, int64 [n, knobs]."""
        kernel = self._kernels[key]
        rows = np.zeros((len(points), self.width))
        at = np.arange(len(points))
        chosen = [columns[points[:, knob]] for knob, columns in enumerate(kernel.values)]
        for columns in chosen:
            rows[at, columns] = 1.0
            for i, feature in enumerate(kernel.features, start=1):
                rows[at, i * len(self._values) + columns] = SHAPED * feature
        for left, right in itertools.combinations(kernel.numbers, 2):
            column = self._numeric + left[0] * self._names + right[0]
            product = left[2][points[:, left[1]]] * right[2][points[:, right[1]]]
            rows[:, column] = NUMERIC * product
        if self._with_pairs:
            for one, other in itertools.combinations(chosen, 2):
                rows[at, self._paired + self._pairs[one, other]] = PAIRED
        return rows

    def distance(self, key: str, left: Integers, right: Integers) -> Floats:
        """Distance of a kernel's points, float64 [left, right], summed over the knobs."""
        found = np.zeros((len(left), len(right)))
        for knob, steps in enumerate(self._kernels[key].steps):
            found += steps[left[:, knob, None], right[None, :, knob]]
        return found


def _steps(knob: Knob) -> Floats:
    """Distance of a knob's values, float64 [values, values]: doublings of a number, else 0 or 1."""
    if _is_number(knob):
        logs = np.log2(np.array(knob.values, dtype=np.float64))
        found: Floats = np.minimum(np.abs(logs[:, None] - logs[None, :]), FARTHEST)
        return found
    return 1.0 - np.eye(len(knob.values))


def _is_number(knob: Knob) -> bool:
    return all(type(value) is int and value > 0 for value in knob.values)


def _numbers(knob: Knob, among: Sequence[Knob]) -> Floats:
    """log2 of a knob's values, standardized over the values that the family has for its name."""
    logs = np.log2(np.array(sorted({v for k in among if k.name == knob.name for v in k.values})))
    found: Floats = (np.log2(np.array(knob.values)) - logs.mean()) / (logs.std() or 1.0)
    return found


def _standard(features: Floats) -> Floats:
    spread = features.std(axis=0)
    found: Floats = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return found


def _value_columns(knobs: Sequence[Knob]) -> dict[tuple[str, Value], int]:
    found: dict[tuple[str, Value], int] = {}
    for knob in knobs:
        for value in knob.values:
            found.setdefault((knob.name, value), len(found))
    return found


def _pair_columns(kernels: Sequence[Sequence[Integers]], singles: int) -> Integers:
    """By two columns of different knobs, the number of their pair; -1 where none has both."""
    pairs = np.full((singles, singles), -1, dtype=np.int64)
    count = 0
    for kernel in kernels:
        for left, right in itertools.combinations(kernel, 2):
            for one, other in itertools.product(left, right):
                if pairs[one, other] < 0:
                    pairs[one, other] = pairs[other, one] = count
                    count += 1
    return pairs
