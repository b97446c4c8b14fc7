"""A whole network in which every kernel has a candidate's knobs: checked to the bit, and counted.

One program serves as many candidates as the network has kernels, and everything that is measured
is what would ship: the same calls, with the same operands and constants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import Compiled, Machine, compile_network
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import read_tensors
from mfn_compile.arm.library import RESERVED
from mfn_compile.arm.prepared import prepared
from mfn_compile.arm.program import Program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.device.board import Core
from mfn_compile.device.emulator import folder as board_folder
from mfn_compile.device.network_run import SUFFIX, run_network
from mfn_compile.errors import InternalCheckError, MfnError
from mfn_compile.records import Choice
from mfn_compile.target import Variant
from mfn_compile.tune.tasks import layers_of

# What a candidate can do: TVM raises errors of Python besides its own.
FAILURES = (
    MfnError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    AttributeError,
)
RUN_SECONDS = 120.0  # both images take 1 s; a candidate that loops for ever is given up
WRONG = "other bits than the oracle's"


@dataclass(frozen=True)
class Answer:
    """What one network said of its candidates, by kernel.

    Attributes:
        cycles: of one layer, for kernels that are right; on a board that is there, nanoseconds.
        errors: of kernels that are wrong.
        whole: why nothing can be said of any of them; empty otherwise.
        total: the same of the whole inference.
    """

    cycles: Mapping[str, float]
    errors: Mapping[str, str]
    whole: str = ""
    total: float = 0.0


@dataclass(frozen=True, eq=False)
class Bench:
    """Measures a network on the virtual board.

    Attributes:
        graph: the whole network; what is built and measured is `built`.
        machine: what code is generated for.
        core: what it runs on.
        images: uint8 RGB [2, height, width, 3].
        cache: folder of the modelled cycles.
    """

    graph: IntegerGraph
    machine: Machine
    core: Core
    images: NDArray[np.uint8]
    cache: Path

    @classmethod
    def of(
        cls,
        graph: IntegerGraph,
        triple: str,
        variant: Variant,
        core: Core,
        images: NDArray[np.uint8],
    ) -> Bench:
        """Of one variant of a target, with the user's cache of modelled cycles."""
        features = (*variant.features, *RESERVED)
        machine = Machine(variant.name, triple, variant.cpu, features)
        return cls(graph, machine, core, images, board_folder())

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        return "the virtual board"

    @cached_property
    def built(self) -> IntegerGraph:
        """What ships: the network without its constant channels."""
        return prepared(self.graph)

    @cached_property
    def wanted(self) -> tuple[dict[str, NDArray[Any]], ...]:
        """The oracle's tensors of what is built, for both images.

        Raises:
            InternalCheckError: an embedding is not the whole network's.
        """
        found = tuple(oracle.run(self.built, image) for image in self.images)
        if self.built is not self.graph:
            whole = oracle.embed(self.graph, self.images)
            ours = np.stack([tensors[self.graph.output].reshape(-1) for tensors in found])
            if not np.array_equal(ours.view(np.uint32), whole.view(np.uint32)):
                raise InternalCheckError(
                    "The network without its constant channels has other bits than the whole one",
                    hint="Report it with the command that you ran",
                )
        return found

    def answer(self, given: Mapping[str, Choice]) -> Answer:
        """Build, run and check the network with these knobs; kernels without keep the default."""
        schedules = Schedules(self.machine.cpu, self.machine.isa, None, given)
        try:
            compiled = compile_network(
                self.built, self.machine, suffix=SUFFIX, overlap=False, schedules=schedules
            )
            return self._run(compiled)
        except FAILURES as error:
            return Answer({}, {}, str(error).strip() or type(error).__name__)

    def _run(self, compiled: Compiled) -> Answer:
        ran = run_network(compiled, self.images, self.core, self.cache, seconds=RUN_SECONDS)
        wrong = set[str]()
        for workspace, wanted in zip(ran.workspaces, self.wanted, strict=True):
            wrong |= self.wrong(compiled, read_tensors(compiled, workspace), wanted)
        cycles = by_key(compiled.program, ran.cycles)
        right = {key: value for key, value in cycles.items() if key not in wrong}
        return Answer(right, dict.fromkeys(sorted(wrong), WRONG), total=sum(ran.cycles.values()))

    def wrong(
        self,
        compiled: Compiled,
        found: Mapping[str, NDArray[Any]],
        wanted: Mapping[str, NDArray[Any]],
    ) -> set[str]:
        """Kernels of steps whose result is not what the oracle makes of the same inputs."""
        wrong = set[str]()
        for node, step in zip(self.built.nodes, compiled.program.steps, strict=True):
            result = found[node.output]
            if np.array_equal(result, wanted[node.output]) or step is compiled.program.steps[0]:
                continue
            if not np.array_equal(result, oracle.run_node(node, dict(found))):
                schedules = compiled.program.schedules
                known = [schedules[c.kernel] for c in step.calls if c.kernel in schedules]
                wrong |= {schedule.kernel.name for schedule in known}
        return wrong


def by_key(program: Program, spent: Mapping[str, float]) -> dict[str, float]:
    """Cost of one layer, by kernel; two functions may be one kernel with other weights.

    Args:
        spent: by function, in an inference.
    """
    sums: dict[str, float] = defaultdict(float)
    for function, schedule in program.schedules.items():
        sums[schedule.kernel.name] += spent.get(function, 0.0)
    return {key: sums[key] / count for key, count in layers_of(program).items()}
