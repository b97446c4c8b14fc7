"""A program's calls split into tasks that threads can run at once, with the same bits.

The tasks of a phase touch no byte that another of them writes, so they may run in any order and at
once; the phases follow each other. A phase is one step, or several where each reads only those
rows of the one before that the same task has made: a fork and join less, and rows still in cache.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.firmware.parts import slowest
from mfn_compile.arm.graph import Conv, FloatConv
from mfn_compile.arm.plan import ALIGNMENT, make_plan
from mfn_compile.arm.program import Call, Place, Program, Step

VALUE_WORK = 8  # multiply-adds that take as long as it takes to make one value of them
SYNC_WORK = 2**17  # that one core does during a fork and join of a few microseconds
TEAMS = (2, 4)  # numbers of threads for which the cuts are chosen
ROW_WISE = "gemm_"  # kernels that make each row of a matrix from that row alone
Span = tuple[int, int]


@dataclass(frozen=True)
class Grain:
    """How fine work is cut: tasks of a phase at most, work of a task and of a phase at least."""

    most: int = 8  # enough for eight cores, and for four that are not equally fast
    task: int = 2**15
    phase: int = SYNC_WORK


@dataclass(frozen=True)
class Share:
    """One call of a phase, in parts.

    Attributes:
        spans: units (begin, end) of every task; equal ends where a task has nothing to do.
        own: the scratch buffer of which every task has its own, None without.
        stride: bytes from one task's to the next one's.
    """

    call: Call
    spans: tuple[Span, ...]
    own: str | None = None
    stride: int = 0

    @property
    def table(self) -> NDArray[np.int32]:
        """The spans as machine code reads them: int32 [tasks, 2]."""
        return np.array(self.spans, np.int32)


@dataclass(frozen=True)
class Phase:
    """Calls that are cut at the same rows; every task does its part of one after another."""

    layers: tuple[str, ...]
    shares: tuple[Share, ...]

    @property
    def tasks(self) -> int:
        """How many; one runs where the call is made, without another thread."""
        return len(self.shares[0].spans)


@dataclass(frozen=True, eq=False)
class ParallelProgram:
    """A network as phases.

    Attributes:
        program: what the phases are of; its scratch buffers hold every task's own, and a phase's
            buffers are all in use in each of its steps.
    """

    program: Program
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class _Group:
    """Calls of a step that write one buffer and do not read each other's part of it.

    `cuts` are, for every call, the rows of the result at which it can be cut, both ends included.
    """

    step: Step
    calls: tuple[Call, ...]
    cuts: tuple[tuple[int, ...], ...]
    work: int

    @property
    def rows(self) -> int:
        return self.cuts[-1][-1]

    @property
    def row_wise(self) -> bool:
        return all(call.kernel.startswith(ROW_WISE) for call in self.calls)


def make_parallel(program: Program, grain: Grain) -> ParallelProgram:
    """Split every step that is worth it, and join steps where that is, in no larger a workspace
    than without.
    """
    groups = [group for step in program.steps for group in _groups(program, step)]
    alone = [[group] for group in groups]
    limit = make_plan(_widened(program, alone, grain)).peak
    joined: list[list[_Group]] = [alone[0]]
    for at, group in enumerate(groups[1:], start=2):
        both = [*joined[-1], group]
        if _may_join(joined[-1], group) and (
            _cost(both, grain) < _cost(joined[-1], grain) + _cost([group], grain)
        ):
            tried = [*joined[:-1], both, *alone[at:]]
            if make_plan(_widened(program, tried, grain)).peak <= limit:
                joined[-1] = both
                continue
        joined.append([group])
    phases = tuple(_phase(each, grain) for each in joined)
    return ParallelProgram(_widened(program, joined, grain), phases)


def _groups(program: Program, step: Step) -> list[_Group]:
    """The calls of a step; a new group begins where a call reads what its group has written."""
    groups: list[list[Call]] = [[]]
    written: set[str] = set()
    for call in step.calls:
        *read, made = _shared(step, call)
        if written.intersection(read):
            groups.append([])
            written.clear()
        groups[-1].append(call)
        written.add(made)
    return [_group(program, step, calls) for calls in groups]


def _group(program: Program, step: Step, calls: Sequence[Call]) -> _Group:
    made = _shared(step, calls[0])[-1]
    size = {**program.sizes, **step.scratch}[made]
    out = program.graph.tensors[step.writes]
    rows = out.height * out.width
    starts = [_offset(step, call) * rows // size for call in calls]
    cuts = tuple(
        tuple(range(begin, end + 1, (end - begin) // (call.span[1] - call.span[0])))
        for call, (begin, end) in zip(calls, pairwise((*starts, rows)), strict=True)
    )
    node = next(node for node in program.graph.nodes if node.name == step.layer)
    work = size * VALUE_WORK
    if isinstance(node, Conv | FloatConv) and made == step.writes:
        work += node.weight.size * rows
    return _Group(step, tuple(calls), cuts, work)


def _places(call: Call) -> list[Place]:
    return [operand for operand in call.operands if isinstance(operand, Place)]


def _own(step: Step, call: Call) -> str | None:
    """Scratch that no other call of the step touches: it holds nothing that anybody else needs."""
    users = Counter(name for each in step.calls for name in {p.buffer for p in _places(each)})
    found = [p.buffer for p in _places(call) if p.buffer in step.scratch and users[p.buffer] == 1]
    return found[0] if found else None


def _shared(step: Step, call: Call) -> list[str]:
    """Buffers that other calls can see; the last one is what the call makes."""
    own = _own(step, call)
    return [place.buffer for place in _places(call) if place.buffer != own]


def _offset(step: Step, call: Call) -> int:
    """Where in its buffer the call begins to write."""
    made = _shared(step, call)[-1]
    return [place.offset for place in _places(call) if place.buffer == made][-1]


def _may_join(phase: Sequence[_Group], group: _Group) -> bool:
    """Whether each task can go on with `group` when others have not finished the phase."""
    # Where the result takes a tensor's place, other tasks may still read that tensor's other rows.
    replaced = group.step.replaces
    others = {name for each in phase if not each.row_wise for name in each.step.reads}
    return group.row_wise and group.rows == phase[-1].rows and replaced not in others


def _phase(groups: Sequence[_Group], grain: Grain) -> Phase:
    shares = []
    ranges = _ranges(groups, grain)
    for group in groups:
        for call, cuts in zip(group.calls, group.cuts, strict=True):
            spans = tuple((_unit(cuts, begin), _unit(cuts, end)) for begin, end in ranges)
            own = _own(group.step, call)
            stride = 0 if own is None else -(-group.step.scratch[own] // ALIGNMENT) * ALIGNMENT
            shares.append(Share(call, spans, own, stride))
    layers = tuple(dict.fromkeys(group.step.layer for group in groups))
    return Phase(layers, tuple(shares))


def _unit(cuts: Sequence[int], row: int) -> int:
    return bisect_left(cuts, min(max(row, cuts[0]), cuts[-1]))


def _ranges(groups: Sequence[_Group], grain: Grain) -> list[Span]:
    """Rows (begin, end) of every task of a phase."""
    possible = [set().union(*group.cuts) for group in groups]
    common = sorted(set.intersection(*possible))
    work = sum(group.work for group in groups)
    worth = work // grain.task if work >= grain.phase else 1
    tasks = max(1, min(grain.most, len(common) - 1, worth))
    weights = [end - begin for begin, end in pairwise(common)]
    return [(common[begin], common[end]) for begin, end in split(weights, tasks)]


def _cost(groups: Sequence[_Group], grain: Grain) -> float:
    """Work that the slowest thread does, on average over teams, and the fork and join."""
    ranges = _ranges(groups, grain)
    work = sum(group.work for group in groups)
    if len(ranges) == 1:
        return work
    parts = [work * (end - begin) / groups[0].rows for begin, end in ranges]
    return SYNC_WORK + sum(slowest(parts, threads) for threads in TEAMS) / len(TEAMS)


def split(weights: Sequence[float], tasks: int) -> list[Span]:
    """Cut a row of units into tasks of about the same weight, each of one unit at least.

    Args:
        weights: of every unit; `tasks` is at most their number.

    Returns:
        Units (begin, end) of every task, the heaviest first, so that threads that take them one
        after another end together.
    """
    sums = np.array([0.0, *accumulate(weights)])
    cuts = [0]
    for number in range(1, tasks):
        nearest = int(np.abs(sums - number * sums[-1] / tasks).argmin())
        cuts.append(min(max(nearest, cuts[-1] + 1), len(weights) - (tasks - number)))
    parts = pairwise((*cuts, len(weights)))
    return sorted(parts, key=lambda part: sums[part[0]] - sums[part[1]])


def _widened(program: Program, phases: Sequence[Sequence[_Group]], grain: Grain) -> Program:
    """The program with every task's own scratch, and every buffer of a phase in use throughout."""
    used: dict[str, set[str]] = {step.layer: set() for step in program.steps}
    own: dict[str, int] = {}
    for groups in phases:
        phase = _phase(groups, grain)
        own |= {s.own: s.stride * phase.tasks for s in phase.shares if s.own is not None}
        steps = [group.step for group in groups]
        if len(phase.layers) > 1:
            names = {n for step in steps for n in (*step.reads, step.writes, *step.scratch)}
            for step in steps:
                used[step.layer] |= names
    return replace(
        program,
        steps=tuple(
            replace(
                step,
                reads=tuple(sorted({*step.reads, *used[step.layer]})),
                scratch={name: own.get(name, size) for name, size in step.scratch.items()},
            )
            for step in program.steps
        ),
    )
