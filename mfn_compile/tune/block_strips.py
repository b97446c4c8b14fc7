"""Blocks of layers strip by strip: how many rows at a time, tuned when the kernels are.

Strips change what is in the caches rather than what is computed, so a block costs its modelled
cycles and what its transfers take at the core's nominal rates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.blocks import blocks, default_rows, fitting, key_of, strips_of
from mfn_compile.arm.codegen import Compiled, compile_network
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import read_tensors
from mfn_compile.arm.kernels import gemm
from mfn_compile.arm.prepared import prepared
from mfn_compile.arm.program import Program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.device.network_run import SUFFIX, NetworkRun, run_network
from mfn_compile.records import Choice, Records
from mfn_compile.tune.task import Knob, Result, Task
from mfn_compile.tune.whole_network import FAILURES, RUN_SECONDS, WRONG, Answer, Bench

ROWS = "rows"
WORTH = 0.98  # of the default's cost: a block in strips has kernels of its own, which are more code


def block_tasks(graph: IntegerGraph, isa: str) -> tuple[Task, ...]:
    """One task for each shape of a block with something to choose, in the network's order."""
    built, tile = prepared(graph), gemm.TILES[isa].rows
    default = default_rows(built, tile)
    count = Counter(key_of(built, block).name for block in blocks(built))
    found: dict[str, Task] = {}
    for block in blocks(built):
        key, values = key_of(built, block), tuple(fitting(built, block, tile))
        if len(values) > 1 and key.name not in found:
            knobs = (Knob(ROWS, values),)
            first = {ROWS: default[block[0].name]}
            found[key.name] = Task(
                key.name, "block", knobs, key.sizes, count[key.name], first, key.attributes
            )
    return tuple(found.values())


def with_defaults(tasks: Sequence[Task], result: Result) -> Result:
    """The winners, but the default rows where those cost as good as the same."""
    first = {task.key: task.first for task in tasks}
    kernels = tuple(
        winner
        if winner.cycles <= WORTH * winner.first_cycles
        else replace(winner, knobs=first[winner.kernel], cycles=winner.first_cycles)
        for winner in result.kernels
    )
    return replace(result, kernels=kernels)


@dataclass(frozen=True, eq=False)
class BlockBench:
    """Measures networks whose blocks have candidates' rows; a `measure.Bench`.

    Attributes:
        bench: the network and the core.
        records: of its kernels.
    """

    bench: Bench
    records: Records

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        return self.bench.place

    def answer(self, given: Mapping[str, Choice]) -> Answer:
        """Build, run and check the network with these rows; other blocks keep the default.

        It runs twice: with every tensor in a place of its own, to be checked, and as it ships, with
        tensors over one another, to be measured, since that decides what stays in the caches.
        """
        machine, graph = self.bench.machine, self.bench.built
        schedules = Schedules(machine.cpu, machine.isa, self.records, given)
        strips = strips_of(graph, schedules)
        try:
            runs = [
                (compiled, self._run(compiled))
                for compiled in (
                    compile_network(
                        graph,
                        machine,
                        suffix=SUFFIX,
                        overlap=overlap,
                        schedules=schedules,
                        strips=strips,
                    )
                    for overlap in (False, True)
                )
            ]
        except FAILURES as error:
            return Answer({}, {}, str(error).strip() or type(error).__name__)
        return self._judge(*runs)

    def _run(self, compiled: Compiled) -> NetworkRun:
        bench = self.bench
        return run_network(compiled, bench.images, bench.core, bench.cache, seconds=RUN_SECONDS)

    def _judge(
        self, checked: tuple[Compiled, NetworkRun], measured: tuple[Compiled, NetworkRun]
    ) -> Answer:
        names = {
            node.name: key_of(self.bench.built, block).name
            for block in blocks(self.bench.built)
            for node in block
        }
        wrong = set[str]()
        for workspace, wanted in zip(checked[1].workspaces, self.bench.wanted, strict=True):
            layers = wrong_layers(checked[0].program, read_tensors(checked[0], workspace), wanted)
            wrong |= {names.get(layer, layer) for layer in layers}
        compiled, ran = measured
        spent = {name: cycles + ran.waits.get(name, 0.0) for name, cycles in ran.cycles.items()}
        cost: dict[str, float] = defaultdict(float)
        for layer, value in by_layer(compiled.program, spent).items():
            if layer in names:
                cost[names[layer]] += value
        count = Counter(key_of(self.bench.built, block).name for block in blocks(self.bench.built))
        right = {key: value / count[key] for key, value in cost.items() if key not in wrong}
        return Answer(right, dict.fromkeys(sorted(wrong), WRONG), total=sum(spent.values()))


def by_layer(program: Program, spent: Mapping[str, float]) -> dict[str, float]:
    """Cost of every layer: a function's is shared by the units of work of its calls.

    Args:
        spent: by function, in an inference.
    """
    units: Counter[str] = Counter()
    for call in program.calls():
        units[call.kernel] += call.span[1] - call.span[0]
    found: dict[str, float] = defaultdict(float)
    for call in program.calls():
        share = (call.span[1] - call.span[0]) / units[call.kernel]
        found[call.layer] += spent.get(call.kernel, 0.0) * share
    return dict(found)


def wrong_layers(
    program: Program, found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]
) -> set[str]:
    """First layers of steps that read what the oracle has, and write something else."""
    wrong = set[str]()
    for step in program.steps:
        read = all(np.array_equal(found[name], wanted[name]) for name in step.reads)
        if read and not np.array_equal(found[step.writes], wanted[step.writes]):
            wrong.add(step.calls[-1].layer)
    return wrong
