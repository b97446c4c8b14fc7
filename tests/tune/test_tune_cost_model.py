"""The cost model: what it learns of one kernel, what it carries over to another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mfn_compile.tune.columns import Columns
from mfn_compile.tune.cost_model import CostModel
from mfn_compile.tune.task import Point, Task
from tests.tune.synthetic import cycles, large, small


def target(task: Task, point: Point) -> float:
    return math.log(cycles(task, task.choice(point)) / cycles(task, task.first))


def spread(model: CostModel, task: Task, points: list[Point]) -> float:
    """Correlation of predicted and true targets."""
    mean, _ = model.predict(task.key, np.array(points))
    return float(np.corrcoef(mean, [target(task, point) for point in points])[0, 1])


def test_measured_points_are_known_and_others_in_doubt() -> None:
    task = small()
    model = CostModel([task])
    points = list(task.points())
    measured, rest = points[::2], points[1::2]
    model.add(task.key, measured, [target(task, point) for point in measured])
    mean, doubt = model.predict(task.key, np.array(measured))
    assert mean == pytest.approx([target(task, point) for point in measured], abs=1e-3)
    assert (doubt < 1e-2).all()
    assert (model.predict(task.key, np.array(rest))[1] > 1e-2).all()
    assert spread(model, task, rest) > 0.9


def test_one_kernel_teaches_another() -> None:
    known, other = large(64, 64), large(128, 64)
    model = CostModel([known, other])
    points = list(known.points())[::25]
    model.add(known.key, points, [target(known, point) for point in points])
    assert spread(model, other, list(other.points())[7::25]) > 0.7


def test_an_untaught_model_says_so() -> None:
    task = small()
    mean, doubt = CostModel([task]).predict(task.key, np.array(list(task.points())))
    assert (mean == 0).all()
    assert (doubt > 0.1).all()


def test_rows_tell_every_point_from_every_other() -> None:
    task = large()
    points = np.array(list(task.points())[::17])
    columns = Columns([task, large(512, 7)])
    rows = columns.rows(task.key, points)
    assert rows.shape == (len(points), columns.width)
    assert len(np.unique(rows, axis=0)) == len(points)
    distance = columns.distance(task.key, points, points)
    assert (distance == distance.T).all()
    assert ((distance == 0) == np.eye(len(points), dtype=bool)).all()
