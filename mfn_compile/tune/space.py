"""A task in MetaSchedule's words: a module of one block whose annotations are the chosen knobs.

Our kernels are assembly inside of TensorIR, so no schedule rule applies to them. What MetaSchedule
sees is a function of one block that names the kernel and its space; a schedule draws an index for
every knob and annotates the block with it, and the builder reads kernel and knobs back.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tvm import IRModule
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.mutator import PyMutator
from tvm.s_tir.meta_schedule.runner import (
    PyRunner,
    PyRunnerFuture,
    RunnerInput,
    RunnerResult,
)
from tvm.s_tir.schedule import Instruction, Trace
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder.tirx import prim_func as build_prim_func
from tvm.target import Target

from mfn_compile.errors import InternalCheckError
from mfn_compile.tune.task import Choice, Measure, Outcome, Point, Task

BLOCK = "kernel"
KERNEL, SPACE, KNOB = "mfn.kernel", "mfn.space", "mfn.knob."
# MetaSchedule wants a target and never compiles for it: the measurement knows the core.
TARGET = Target("llvm")


def module_of(task: Task) -> IRModule:
    """The module that stands for the kernel; its structure is the identity of kernel and space."""
    space = json.dumps({knob.name: knob.values for knob in task.knobs})
    with IRBuilder() as builder, build_prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tir.noalias": True})
        cell = T.arg("cell", T.buffer((1,), "int32"))
        with T.sblock(BLOCK):
            T.reads()
            T.writes(cell[0:1])
            T.sblock_attr({KERNEL: task.key, SPACE: space})
            T.buffer_store(cell, 0, [0])
    return IRModule({"main": builder.get()})


def drawing(task: Task) -> Callable[[Schedule], None]:
    """The design space: draws every knob of the task."""

    def draw(schedule: Schedule) -> None:
        _draw(task, schedule, [None] * len(task.knobs))

    return draw


def schedule_at(task: Task, module: IRModule, point: Point) -> Schedule:
    """The schedule of one point of the space."""
    schedule = Schedule(module)
    _draw(task, schedule, point)
    return schedule


def _draw(task: Task, schedule: Schedule, decisions: Sequence[int | None]) -> None:
    block = schedule.get_sblock(BLOCK)
    for knob, decision in zip(task.knobs, decisions, strict=True):
        count = len(knob.values)
        index = schedule.sample_categorical(list(range(count)), [1.0 / count] * count, decision)
        schedule.annotate(block, KNOB + knob.name, index)


def point_of(trace: Trace) -> Point:
    """The point that a trace decided on."""
    return tuple(int(trace.get_decision(draw)) for draw in _draws(trace))


def _draws(trace: Trace) -> list[Instruction]:
    return [step for step in trace.insts if step.kind.name == "SampleCategorical"]


class RedrawKnob(PyMutator):  # type: ignore[misc]
    """Redraws one knob of a trace; a space of one point has nothing to redraw."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._random = random.Random(seed)

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        """Nothing of the context is needed."""

    def apply(self, trace: Trace, _: int) -> Trace | None:
        """A trace that differs in one decision."""
        draws = [draw for draw in _draws(trace) if len(draw.attrs[0]) > 1]
        if not draws:
            return None
        draw = self._random.choice(draws)
        other = self._random.randrange(len(draw.attrs[0]) - 1)
        other += other >= int(trace.get_decision(draw))
        return trace.with_decision(draw, other, remove_postproc=True)

    def clone(self) -> Any:
        """A mutator that starts over."""
        return derived_object(RedrawKnob)(self._seed)


def evolution_of(
    task: Task, module: IRModule, seed: int, search: ms.search_strategy.EvolutionarySearch
) -> ms.TuneContext:
    """The context of an evolutionary search, on one thread because several are not repeatable.

    It is made without TuneContext's own constructor, which imports the tensor intrinsics of every
    GPU: 24 s in each process, for modules that are never lowered.
    """
    space = ms.space_generator.ScheduleFn(
        drawing(task),
        sch_rules=[],
        postprocs=[],
        mutator_probs={derived_object(RedrawKnob)(seed): 1.0},
    )
    context = ms.TuneContext.__new__(ms.TuneContext)
    threads = 1
    api = ms.tune_context._ffi_api
    context.__init_handle_by_constructor__(
        api.TuneContext, module, TARGET, space, search, task.key, threads, seed, _unheard
    )
    api.TuneContextInitialize(context)
    return context


def _unheard(level: int, file: str, line: int, message: str) -> None:
    """Takes the search's log lines, which it would print without a logger."""


def seed_of(seed: int, key: str) -> int:
    """A task's own seed, 1 to 2**31 - 2, whatever tasks are tuned beside it."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**31 - 2) + 1


class KnobBuilder(PyBuilder):  # type: ignore[misc]
    """Reads kernel and knobs back from a scheduled module; the "path" of an artifact is the two.

    Code is emitted where it is measured, so that the measurement can compare it with the oracle.
    """

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        """One artifact an input; reading annotations cannot fail."""
        return [BuilderResult(_artifact(given.mod), None) for given in build_inputs]


def _artifact(module: IRModule) -> str:
    schedule = Schedule(module)
    notes = schedule.get(schedule.get_sblock(BLOCK)).annotations
    space = json.loads(str(notes[SPACE]))
    knobs = {name: values[int(notes[KNOB + name])] for name, values in space.items()}
    return json.dumps({"kernel": str(notes[KERNEL]), "knobs": knobs})


class Measured(PyRunnerFuture):  # type: ignore[misc]
    """A measurement that is taken when its result is asked for."""

    def __init__(self, outcomes: Iterator[Outcome]) -> None:
        self._outcomes = outcomes
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """What was measured; the batch's outcomes come in its order."""
        if self._outcome is None:
            self._outcome = next(self._outcomes, None)
        if self._outcome is None:
            raise InternalCheckError("A measurement gave fewer outcomes than it had candidates")
        return self._outcome

    def done(self) -> bool:
        """Whether it was taken."""
        return self._outcome is not None

    def result(self) -> RunnerResult:
        """The same for MetaSchedule; cycles stand where it has seconds."""
        return runner_result(self.outcome)


def runner_result(outcome: Outcome) -> RunnerResult:
    """An outcome as MetaSchedule keeps it; its seconds are our cycles."""
    cycles = None if outcome.cycles is None else [outcome.cycles]
    return RunnerResult(cycles, outcome.error)


class MeasureRunner(PyRunner):  # type: ignore[misc]
    """Runs a batch through `measure`.

    Called as the Python object it is: TVM's bridge turns every exception of a callback, Ctrl-C
    and our named errors included, into RuntimeError.
    """

    def __init__(self, tasks: Iterable[Task], measure: Measure) -> None:
        super().__init__()
        self._tasks = {task.key: task for task in tasks}
        self._measure = measure

    def run(self, runner_inputs: list[RunnerInput]) -> list[Measured]:
        """Hand the batch over; the outcomes are waited for one by one."""
        outcomes = iter(self._measure([self._unpacked(given) for given in runner_inputs]))
        return [Measured(outcomes) for _ in runner_inputs]

    def _unpacked(self, given: RunnerInput) -> tuple[Task, Choice]:
        artifact = json.loads(str(given.artifact_path))
        return self._tasks[artifact["kernel"]], artifact["knobs"]
