"""Cycles of blocks on the in-order cores, Cortex-A53 and Cortex-A55: a simulator of their issue.

LLVM's tables for these cores are wrong for 128-bit vector instructions; timing.py has ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfn_compile.device.assembly import disassemble
from mfn_compile.device.operation import InOrderCore, Operation, decode_all

WIDTH = 2  # instructions a cycle
PIPES = 2  # 64-bit vector pipes
WARM_UP, MEASURED = 3, 3  # runs of a block, back to back


class Pipeline:
    """The state between two instructions."""

    def __init__(self) -> None:
        self.cycle = 0
        self._issued = 0  # in this cycle
        self._pipes = 0  # taken in this cycle
        self._vector_until = 0
        self._port_until = {"load": 0, "store": 0}
        self._no_vector_in = -1  # cycle in which no vector arithmetic may issue
        self._ready: dict[str, int] = {}  # by register: for every reader
        self._chained: dict[str, int] = {}  # for a reader that adds to it

    @property
    def position(self) -> float:
        """Cycles so far; half a cycle is one of two slots."""
        return self.cycle + self._issued / WIDTH

    def issue(self, operation: Operation) -> None:
        """Issue the next instruction of the program as soon as it can be."""
        earliest = self._earliest(operation)
        if earliest > self.cycle:
            self._begin(earliest)
        elif not self._fits(operation):
            self._begin(self.cycle + 1)
        self._take(operation)

    def _begin(self, cycle: int) -> None:
        self.cycle, self._issued, self._pipes = cycle, 0, 0

    def _earliest(self, operation: Operation) -> int:
        """When its inputs and its port or pipes are there."""
        timing = operation.timing
        times = [self._ready.get(name, 0) - timing.late for name in operation.reads]
        times += [self._chained.get(name, 0) for name in operation.adds_to]
        if operation.memory is not None:
            times.append(self._port_until[operation.memory])
        if timing.pipes:
            times.append(self._vector_until)
        return max(times, default=0)

    def _fits(self, operation: Operation) -> bool:
        """Whether this cycle has room beside what it has issued."""
        timing = operation.timing
        if self._issued == WIDTH or (timing.begins and self._issued):
            return False
        if timing.pipes and self._no_vector_in == self.cycle:
            return False
        return self._pipes + timing.pipes <= PIPES

    def _take(self, operation: Operation) -> None:
        timing = operation.timing
        for name in operation.writes:
            self._ready[name] = self.cycle + timing.latency
            self._chained[name] = self.cycle + (timing.chain or timing.latency)
        for name in operation.steps:
            self._ready[name] = self._chained[name] = self.cycle + 1
        if operation.memory is not None:
            self._port_until[operation.memory] = self.cycle + timing.port
        if timing.no_vector:
            self._no_vector_in = self.cycle
        if timing.pipes:
            self._pipes += timing.pipes
            self._vector_until = self.cycle + (timing.busy if timing.busy > 1 else 0)
        if timing.stall:
            self._begin(self.cycle + timing.stall)
        else:
            self._issued += 1


@dataclass(frozen=True)
class InOrder:
    """The model of one of the two cores."""

    core: InOrderCore

    @property
    def identity(self) -> str:
        """What its numbers depend on, beside the code of this package."""
        return f"in-order {self.core}"

    def cycles(self, codes: Sequence[bytes]) -> list[float]:
        """Cycles of one run of each block, from runs back to back."""
        return [steady(decode_all(disassemble(code), self.core)) for code in codes]


def steady(operations: Sequence[Operation]) -> float:
    """Cycles of one run of a loop's body, once the loop has settled."""
    pipeline = Pipeline()
    start = 0.0
    for run in range(WARM_UP + MEASURED):
        if run == WARM_UP:
            start = pipeline.position
        for operation in operations:
            pipeline.issue(operation)
    return (pipeline.position - start) / MEASURED
