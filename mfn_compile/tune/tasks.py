"""The kernels of a network that have something to choose, as tasks of the search."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.kernels.knobs import DEFAULT, space_of
from mfn_compile.arm.prepared import prepared
from mfn_compile.arm.program import Program, make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.tune.task import Knob, Task


def tasks_of(graph: IntegerGraph, cpu: str, isa: str) -> tuple[Task, ...]:
    """One task for each kernel with knobs, in the order of the network as it is built.

    Args:
        cpu: LLVM's name of the core.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
    """
    program = make_program(prepared(graph), Schedules(cpu, isa))
    default = asdict(DEFAULT)
    calls = layers_of(program)
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


def layers_of(program: Program) -> Counter[str]:
    """How many layers each kernel with knobs computes, in one call or strip by strip."""
    used = {
        (program.schedules[call.kernel].kernel.name, call.layer)
        for call in program.calls()
        if call.kernel in program.schedules
    }
    order = {schedule.kernel.name: 0 for schedule in program.schedules.values()}
    return Counter(order) + Counter(name for name, _ in used)
