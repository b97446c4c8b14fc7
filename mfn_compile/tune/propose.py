"""Which points of a kernel's space to measure next; no point is proposed twice."""

from __future__ import annotations

import itertools
import math
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import numpy.typing as npt
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.cost_model import PyCostModel
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from mfn_compile.tune.cost_model import CostModel
from mfn_compile.tune.space import evolution_of, module_of, point_of, schedule_at, seed_of
from mfn_compile.tune.task import Point, Task

ENUMERATED = 512  # points; all of a smaller space are ranked, a larger one evolves
DRAWN = 4096  # where the last points of a larger space are looked for, so many at a time
POPULATION, GENERATIONS, ATTEMPTS = 64, 4, 3
GREED = 8.0  # a generation's parents are drawn with the predicted speed to this power
DRAWS = 0.7  # of the doubt in a ranking; all of it explores too much
UNMEASURED = 0.15  # of a batch of evolved points, drawn at random


@dataclass(frozen=True)
class Candidate:
    """A point and its schedule."""

    point: Point
    schedule: Schedule


class Prediction(PyCostModel):  # type: ignore[misc]
    """The family's model as evolutionary search asks it; learning happens in the engine."""

    def __init__(self, task: Task, model: CostModel) -> None:
        super().__init__()
        self._task, self._model = task, model

    def load(self, path: str) -> None:
        """The model is learnt from the log again, never loaded."""

    def save(self, path: str) -> None:
        """The model is learnt from the log again, never saved."""

    def update(
        self,
        context: ms.TuneContext,
        candidates: list[MeasureCandidate],
        results: list[RunnerResult],
    ) -> None:
        """The engine teaches the model, with kernels that do not evolve as well."""

    def predict(
        self, context: ms.TuneContext, candidates: list[MeasureCandidate]
    ) -> npt.NDArray[np.float64]:
        """Hoped-for speed against the first knobs, to the power of GREED, float64 [candidates]."""
        points = np.array([point_of(one.sch.trace) for one in candidates], dtype=np.int64)
        points = points.reshape(len(candidates), -1)
        mean, doubt = self._model.predict(self._task.key, points)
        speed: npt.NDArray[np.float64] = np.exp(-GREED * (mean - doubt))
        return speed


class Proposer:
    """Proposes the points of one task."""

    def __init__(
        self, task: Task, model: CostModel, database: ms.database.Database, seed: int, batch: int
    ) -> None:
        self.task = task
        self.module = module_of(task)
        self.args_info = ms.arg_info.ArgInfo.from_entry_func(self.module)
        self._model, self._database, self._batch = model, database, batch
        self._seed = seed_of(seed, task.key)
        self._random = np.random.default_rng(self._seed)
        self._proposed: set[Point] = set()
        self._evolution: ms.TuneContext | None = None

    @property
    def exhausted(self) -> bool:
        """Every point was proposed."""
        return len(self._proposed) == self.task.space_size

    def first(self) -> Candidate:
        """The hand-chosen point."""
        return self._at(self.task.point(self.task.first))

    def propose(self) -> list[Candidate]:
        """At most a batch of points, the most promising ones; none once the space is exhausted."""
        if self.exhausted:
            return []
        if self.task.space_size <= ENUMERATED:
            return self._ranked(self.task.points())
        for _ in range(ATTEMPTS):
            if found := self._evolved():
                return found
        return self._ranked(self._drawn())

    def _ranked(self, points: Iterator[Point]) -> list[Candidate]:
        """The best of `points` by a draw from the model's belief (Thompson sampling)."""
        left = list(itertools.islice((p for p in points if p not in self._proposed), DRAWN))
        mean, doubt = self._model.predict(self.task.key, np.array(left, dtype=np.int64))
        belief = mean + DRAWS * doubt * self._random.standard_normal(len(left))
        best = np.argsort(belief, kind="stable")[: self._batch]
        return [self._at(left[i]) for i in best]

    def _drawn(self) -> Iterator[Point]:
        """All points of the space, from a place drawn at random on and around."""
        sizes = [len(knob.values) for knob in self.task.knobs]
        total = math.prod(sizes)
        start = random.Random(int(self._random.integers(2**62))).randrange(total)
        for index in itertools.chain(range(start, total), range(start)):
            yield _unravel(index, sizes)

    def _evolved(self) -> list[Candidate]:
        """Points from one round of evolutionary search, without those that are known.

        The strategy itself forgets what a database or another strategy measured.
        """
        with _interrupts_wait():
            if self._evolution is None:
                self._evolution = self._start()
            found = self._evolution.generate_measure_candidates() or []
        fresh = []
        for candidate in found:
            point = point_of(candidate.sch.trace)
            if point not in self._proposed:
                self._proposed.add(point)
                fresh.append(Candidate(point, candidate.sch))
        return fresh

    def _start(self) -> ms.TuneContext:
        search = ms.search_strategy.EvolutionarySearch(
            population_size=POPULATION,
            init_min_unmeasured=POPULATION // 4,
            genetic_num_iters=GENERATIONS,
            eps_greedy=UNMEASURED,
        )
        context = evolution_of(self.task, self.module, self._seed, search)
        context.pre_tuning(
            max_trials=2**30,  # the engine counts
            num_trials_per_iter=self._batch,
            database=self._database,
            cost_model=derived_object(Prediction)(self.task, self._model),
        )
        return context

    def _at(self, point: Point) -> Candidate:
        self._proposed.add(point)
        return Candidate(point, schedule_at(self.task, self.module, point))


def _unravel(index: int, sizes: Sequence[int]) -> Point:
    """The point at a place of the space's order."""
    point = []
    for size in reversed(sizes):
        index, place = divmod(index, size)
        point.append(place)
    return tuple(reversed(point))


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until TVM has returned: in a callback it would become RuntimeError."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])
