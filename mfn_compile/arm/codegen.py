"""A program to machine code: one LLVM module, one relocatable object."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfn_compile.arm.dispatch import dispatch_ir
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.lower import make_target, to_llvm, write_object
from mfn_compile.arm.module import Part, merge
from mfn_compile.arm.network import batch_ir, entry_points, lay_out, network_ir
from mfn_compile.arm.parallel import Grain, ParallelProgram, make_parallel
from mfn_compile.arm.parallel_ir import PARALLEL, parallel_ir
from mfn_compile.arm.plan import Plan, make_plan
from mfn_compile.arm.program import Program, make_program
from mfn_compile.arm.schedules import Schedules, shipped


@dataclass(frozen=True)
class Machine:
    """What code is generated for.

    Attributes:
        isa: kernels to use, a key of `gemm.TILES`.
        triple, cpu, features: LLVM's names.
    """

    isa: str
    triple: str
    cpu: str
    features: tuple[str, ...] = ()

    def schedules(self) -> Schedules:
        """The knobs that ship for its CPU."""
        return shipped(self.cpu, self.isa)


@dataclass(frozen=True, eq=False)
class Threaded:
    """What mfn_embed_parallel runs, and the plan of its workspace."""

    parallel: ParallelProgram
    plan: Plan


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network in LLVM IR, with its program and memory plan; with `threaded`, for threads too."""

    machine: Machine
    program: Program
    plan: Plan
    llvm: str
    suffix: str
    threaded: Threaded | None = None

    @property
    def programs(self) -> tuple[Program, ...]:
        """Everything that its code runs."""
        more = () if self.threaded is None else (self.threaded.parallel.program,)
        return (self.program, *more)

    def functions(self, suffix: str) -> tuple[str, ...]:
        """The C functions in it, with another suffix."""
        more = () if self.threaded is None else (f"{PARALLEL}{suffix}",)
        return (*entry_points(self.program, suffix), *more)


def compile_network(
    graph: IntegerGraph,
    machine: Machine,
    *,
    suffix: str = "",
    overlap: bool = True,
    schedules: Schedules | None = None,
    threads: Grain | None = None,
) -> Compiled:
    """Generate code for a graph.

    Args:
        suffix: behind the names of the entry points.
        overlap: False keeps every tensor of a run in the workspace, to be looked at.
        schedules: of the kernels; by default those that ship for the machine's CPU.
        threads: how fine mfn_embed_parallel cuts its work; None without that function.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
    """
    program = make_program(graph, schedules or machine.schedules())
    plan = make_plan(program, overlap=overlap)
    threaded = None if threads is None else _threaded(program, threads)
    builders = {**program.kernels, **(threaded.parallel.program.kernels if threaded else {})}
    target: Any = make_target(machine.triple, machine.cpu, machine.features)
    kernels = to_llvm({name: build() for name, build in builders.items()}, target)
    llvm = _whole_ir(program, plan, kernels, suffix, threaded)
    return Compiled(machine, program, plan, llvm, suffix, threaded)


def _threaded(program: Program, grain: Grain) -> Threaded:
    parallel = make_parallel(program, grain)
    return Threaded(parallel, make_plan(parallel.program))


def _whole_ir(
    program: Program, plan: Plan, kernels: str, suffix: str, threaded: Threaded | None
) -> str:
    """The network's module; what threads need has its constants in the same block."""
    if threaded is None:
        return network_ir(program, plan, kernels, suffix)
    parallel = threaded.parallel
    theirs = parallel.program.constants
    tables = [share.table for phase in parallel.phases for share in phase.shares]
    layout = lay_out([*program.constants, *theirs, *tables])
    rest = layout.offsets[len(program.constants) :]
    offsets, places = rest[: len(theirs)], rest[len(theirs) :]
    module = network_ir(program, plan, kernels, suffix, layout=layout)
    return module + parallel_ir(parallel, threaded.plan, offsets, places, suffix)


def object_code(llvm: str) -> bytes:
    """The relocatable ELF object of LLVM IR text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.o")
        write_object(llvm, str(path), str(Path(folder, "network.ll")))
        return path.read_bytes()


def library_ir(variants: Sequence[Compiled], features: tuple[str, ...] = ()) -> str:
    """One module of several variants of a network, with the entry points that choose one.

    Args:
        features: of the code that chooses; that of the variants has its own.
    """
    parts = [Part(c.machine.isa, c.llvm, c.functions(c.suffix)) for c in variants]
    target = json.dumps({"kind": "llvm", "mtriple": variants[0].machine.triple})
    names = tuple(part.variant for part in parts)
    choice = dispatch_ir(names, variants[0].functions(""), features)
    return merge(parts, choice, target)


def with_batch(compiled: Compiled) -> str:
    """LLVM IR that TVM's runtime can call in-process."""
    return compiled.llvm + batch_ir(compiled.program, compiled.suffix)
