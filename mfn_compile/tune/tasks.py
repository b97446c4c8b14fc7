"""The kernels of a network that have something to choose, as tasks of the search."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from mfn_compile.arm.constant_channels import without_constant_channels
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.kernels.knobs import knobs_of, space_of
from mfn_compile.arm.program import make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.tune.task import Knob, Task


def tasks_of(graph: IntegerGraph, cpu: str, isa: str) -> tuple[Task, ...]:
    """One task for each kernel with knobs, in the order of the network as it is built.

    Args:
        cpu: LLVM's name of the core; its row of knobs is the hand-chosen beginning.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
    """
    program = make_program(without_constant_channels(graph), Schedules(cpu, isa))
    default = asdict(knobs_of(cpu))
    calls = Counter(
        program.schedules[call.kernel].kernel.name
        for step in program.steps
        for call in step.calls
        if call.kernel in program.schedules
    )
    keys = {schedule.kernel.name: schedule.kernel for schedule in program.schedules.values()}
    found = []
    for name, count in calls.items():
        key, space = keys[name], space_of(keys[name].family, isa)
        if space:
            knobs = tuple(Knob(knob, values) for knob, values in space.items())
            first = {knob: default[knob] for knob in space}
            attributes = {k: key.attributes[k] for k in sorted(key.attributes)}
            found.append(Task(name, key.family, knobs, key.sizes, count, first, attributes))
    return tuple(found)
