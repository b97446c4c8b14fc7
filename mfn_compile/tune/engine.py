"""Tunes kernels with MetaSchedule, resumes from its log, and ends the same however often killed.

The loop over kernels is ours. MetaSchedule's task scheduler overruns its budget by up to a batch,
turns Ctrl-C in a callback into RuntimeError, and cannot measure the first knobs of all kernels
before it searches. A resumed run repeats the search of the killed one and takes from the log what
was measured, so database, cost model and random states are those of an uninterrupted run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderInput
from tvm.s_tir.meta_schedule.runner import RunnerInput

from mfn_compile.errors import InternalCheckError, UsageError
from mfn_compile.tune.budget import Progress
from mfn_compile.tune.cost_model import FAILED, CostModel
from mfn_compile.tune.errors import FirstFailedError
from mfn_compile.tune.log import Line, Log, forget, open_log
from mfn_compile.tune.propose import Candidate, Proposer
from mfn_compile.tune.space import TARGET, KnobBuilder, MeasureRunner, runner_result
from mfn_compile.tune.task import Measure, Outcome, Result, Task, Trial, Winner

BATCH = 4
WORKLOADS, TUNING_RECORDS = "database_workload.json", "database_tuning_record.json"
NEVER = 1e10  # the time that MetaSchedule gives a candidate that failed


def tune(
    tasks: Sequence[Task],
    measure: Measure,
    folder: Path,
    *,
    trials: int,
    seed: int,
    target: str,
    code: str = "",
    batch: int = BATCH,
    stop: Callable[[float], bool] | None = None,
    observe: Callable[[Trial], None] = lambda trial: None,
) -> Result:
    """Find the fastest knobs of every task.

    The first knobs of all tasks are measured before anything else, even where `trials` is less.
    Same tasks, seed, batch and measurements: same trials and same winners, killed or not.

    Args:
        measure: measures a batch; what it raises ends the tuning, and the log stays good.
        folder: of the log and MetaSchedule's database; made if absent, resumed if it has a log.
        trials: points in all, those that the log already has and are proposed again included.
        target: the core, compared with that of the folder.
        code: version of the kernels and the way to measure, compared with that of the folder.
        batch: points of a kernel that are proposed and measured together.
        stop: asked after every batch with the cycles of one inference; true ends the tuning.
        observe: told of every trial, also of those that the log knew.

    Raises:
        FirstFailedError: the first knobs of a task fail.
        TuningFolderError: the folder's log is damaged, or of another target, code or knob space.
        FolderBusyError: another process tunes in `folder`.
        DeviceError: `folder` cannot be written.
        UsageError: no tasks, a key twice, or a family whose tasks have different sizes.
    """
    _check(tasks, trials, batch)
    # Several threads of linear algebra round differently, and wait busily for the next product.
    with threadpool_limits(1, "blas"), open_log(folder, tasks, target, code) as log:
        forget(folder, (WORKLOADS, TUNING_RECORDS))
        session = _Session(tasks, measure, folder, log, seed, batch, observe)
        session.measure_firsts()
        ended = session.search(trials, stop)
        return session.result(ended)


def _check(tasks: Sequence[Task], trials: int, batch: int) -> None:
    if not tasks or trials < 1 or batch < 1:
        raise UsageError("Tuning needs a task, a trial and a batch of at least one")
    if len({task.key for task in tasks}) != len(tasks):
        raise UsageError("Two tasks have the same key")
    names = {(task.family, tuple(sorted(task.sizes))) for task in tasks}
    if len({family for family, _ in names}) != len(names):
        raise UsageError("Kernels of one family have different sizes", where=str(sorted(names)))


@dataclass
class _Kernel:
    """A task under way."""

    task: Task
    proposer: Proposer
    model: CostModel
    workload: ms.database.Workload
    progress: Progress
    first_cycles: float = math.inf
    best: float = math.inf
    trials: int = 0


@dataclass
class _Session:
    tasks: Sequence[Task]
    measure: Measure
    folder: Path
    log: Log
    seed: int
    batch: int
    observe: Callable[[Trial], None]
    asked: int = 0
    measured: int = 0
    kernels: list[_Kernel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = ms.database.JSONDatabase(
            str(self.folder / WORKLOADS), str(self.folder / TUNING_RECORDS)
        )
        self.builder = KnobBuilder()
        self.runner = MeasureRunner(self.tasks, self.measure)
        families: dict[str, list[Task]] = {}
        for task in self.tasks:
            families.setdefault(task.family, []).append(task)
        models = {family: CostModel(members) for family, members in families.items()}
        for task in self.tasks:
            model = models[task.family]
            proposer = Proposer(task, model, self.database, self.seed, self.batch)
            workload = self.database.commit_workload(proposer.module)
            self.kernels.append(_Kernel(task, proposer, model, workload, Progress(task.calls)))

    @property
    def total(self) -> float:
        """Cycles of one inference with the best knobs so far; infinite before all have some."""
        return sum(kernel.task.calls * kernel.best for kernel in self.kernels)

    def measure_firsts(self) -> None:
        """Measure the hand-chosen knobs, the kernels together."""
        firsts = [(kernel, kernel.proposer.first()) for kernel in self.kernels]
        for kernel, outcome in zip(self.kernels, self._take(firsts), strict=True):
            if outcome.cycles is None:
                raise FirstFailedError(
                    "The hand-chosen knobs of a kernel fail",
                    where=kernel.task.key,
                    why=outcome.error or "",
                    hint="Mend the kernel, then tune into another folder",
                )

    def search(
        self, trials: int, stop: Callable[[float], bool] | None
    ) -> Literal["trials", "exhausted", "stop"]:
        """Batches of all kernels, those that promise most first, until something ends it."""
        while stop is None or not stop(self.total):
            if self.asked >= trials:
                return "trials"
            waiting = [kernel for kernel in self.kernels if not kernel.proposer.exhausted]
            if not waiting:
                return "exhausted"
            waiting.sort(key=lambda one: one.progress.expected, reverse=True)
            found = [(kernel, one) for kernel in waiting for one in kernel.proposer.propose()]
            for _ in self._take(found[: trials - self.asked]):
                pass
        return "stop"

    def _take(self, batch: Sequence[tuple[_Kernel, Candidate]]) -> Iterator[Outcome]:
        """Outcomes of a batch, from the log where it has them; learnt when the batch is done."""
        outcomes = self._outcomes(batch)
        learnt: dict[str, list[tuple[Candidate, Outcome]]] = {}
        for kernel, candidate in batch:
            outcome = next(outcomes)
            learnt.setdefault(kernel.task.key, []).append((candidate, outcome))
            yield outcome
        for kernel in self.kernels:
            if found := learnt.get(kernel.task.key):
                _learn(kernel, found)

    def _outcomes(self, batch: Sequence[tuple[_Kernel, Candidate]]) -> Iterator[Outcome]:
        fresh = [(k, c) for k, c in batch if (k.task.key, c.point) not in self.log.known]
        built = self.builder.build([BuilderInput(c.schedule.mod, TARGET) for _, c in fresh])
        inputs = [
            RunnerInput(artifact.artifact_path, TARGET.kind.name, kernel.proposer.args_info)
            for artifact, (kernel, _) in zip(built, fresh, strict=True)
        ]
        futures = iter(self.runner.run(inputs) if inputs else [])
        for kernel, candidate in batch:
            line = self.log.known.get((kernel.task.key, candidate.point))
            known = line is not None
            if line is None:
                choice = kernel.task.choice(candidate.point)
                line = self.log.append(kernel.task, choice, next(futures).outcome, self.seed)
                self.measured += 1
            self._count(kernel, candidate, line, known)
            yield line.outcome

    def _count(self, kernel: _Kernel, candidate: Candidate, line: Line, known: bool) -> None:
        self.asked += 1
        kernel.trials += 1
        if line.cycles is not None:
            kernel.best = min(kernel.best, line.cycles)
            if kernel.first_cycles == math.inf:
                kernel.first_cycles = line.cycles
        result = runner_result(line.outcome)
        self.database.commit_tuning_record(
            ms.database.TuningRecord(
                candidate.schedule.trace,
                kernel.workload,
                result.run_secs or [NEVER],
                TARGET,
                kernel.proposer.args_info,
            )
        )
        finite = [x if x < math.inf else None for x in (kernel.best, self.total)]
        self.observe(
            Trial(line.trial, line.kernel, line.knobs, line.outcome, known, finite[0], finite[1])
        )

    def result(self, ended: Literal["trials", "exhausted", "stop"]) -> Result:
        """The winners over all that the log has of the tasks."""
        winners = tuple(_winner(kernel, self.log) for kernel in self.kernels)
        calls = [kernel.task.calls for kernel in self.kernels]
        return Result(
            kernels=winners,
            first_cycles=sum(n * w.first_cycles for n, w in zip(calls, winners, strict=True)),
            cycles=sum(n * w.cycles for n, w in zip(calls, winners, strict=True)),
            trials=sum(winner.trials for winner in winners),
            measured=self.measured,
            ended=ended,
        )


def _learn(kernel: _Kernel, found: Sequence[tuple[Candidate, Outcome]]) -> None:
    """Teach the family's model a batch; without the first's cycles there is nothing to compare."""
    if kernel.first_cycles == math.inf:
        return
    targets = [
        FAILED if outcome.cycles is None else math.log(outcome.cycles / kernel.first_cycles)
        for _, outcome in found
    ]
    kernel.model.add(kernel.task.key, [candidate.point for candidate, _ in found], targets)
    kernel.progress.add(kernel.trials, kernel.best)


def _winner(kernel: _Kernel, log: Log) -> Winner:
    """Fewest cycles; of equal ones the point that comes first in the space's order."""
    key = kernel.task.key
    lines = {point: line for (name, point), line in log.known.items() if name == key}
    good = [(line.cycles, point) for point, line in lines.items() if line.cycles is not None]
    if not good:
        raise InternalCheckError("A kernel ended without cycles", where=key)
    cycles, point = min(good)
    return Winner(
        kernel=key,
        knobs=kernel.task.choice(point),
        cycles=cycles,
        first_cycles=kernel.first_cycles,
        trial=lines[point].trial,
        trials=len(lines),
        failures=len(lines) - len(good),
        exhausted=len(lines) == kernel.task.space_size,
    )
