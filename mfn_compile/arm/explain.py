"""What is told about the schedules of a compiled network."""

from __future__ import annotations

from dataclasses import asdict

from mfn_compile.arm.codegen import Compiled
from mfn_compile.arm.kernels.knobs import space_of
from mfn_compile.schedule_result import KernelSchedule


def describe_schedules(compiled: Compiled) -> tuple[KernelSchedule, ...]:
    """One row for each kernel with something to choose, in the network's order."""
    program, isa = compiled.program, compiled.machine.isa
    found = []
    for kernel, served in program.layers().items():
        if kernel not in program.schedules:
            continue
        schedule = program.schedules[kernel]
        space = space_of(schedule.kernel.family, isa)
        if not space:
            continue
        knobs = asdict(schedule.knobs)
        found.append(
            KernelSchedule(
                kernel=kernel,
                variant=isa,
                layers=len(served),
                knobs={name: knobs[name] for name in space},
                source=schedule.source,
                tuned_for=schedule.tuned_for,
                cycles=schedule.cycles,
                first_cycles=schedule.first_cycles,
                unit=schedule.unit,
            )
        )
    return tuple(found)
