"""A program to machine code: one LLVM module, one relocatable object."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfn_compile.arm.dispatch import dispatch_ir
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.lower import make_target, to_llvm, write_object
from mfn_compile.arm.module import Part, merge
from mfn_compile.arm.network import batch_ir, entry_points, network_ir
from mfn_compile.arm.plan import Plan, make_plan
from mfn_compile.arm.program import UNFUSED, Program, make_program


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


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network in LLVM IR, with its program and memory plan."""

    machine: Machine
    program: Program
    plan: Plan
    llvm: str
    suffix: str


def compile_network(
    graph: IntegerGraph,
    machine: Machine,
    *,
    suffix: str = "",
    overlap: bool = True,
    strips: Mapping[str, int] | None = None,
) -> Compiled:
    """Generate code for a graph.

    Args:
        suffix: behind the names of the entry points.
        overlap: False keeps every tensor of a run in the workspace, to be looked at; then no
            block is computed strip by strip, unless `strips` says so.
        strips: see `make_program`.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
    """
    chosen = UNFUSED if strips is None and not overlap else strips
    program = make_program(graph, machine.isa, machine.cpu, chosen)
    plan = make_plan(program, overlap=overlap)
    target: Any = make_target(machine.triple, machine.cpu, machine.features)
    kernels = to_llvm({name: build() for name, build in program.kernels.items()}, target)
    llvm = network_ir(program, plan, kernels, suffix)
    return Compiled(machine, program, plan, llvm, suffix)


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
    parts = [Part(c.machine.isa, c.llvm, entry_points(c.program, c.suffix)) for c in variants]
    target = json.dumps({"kind": "llvm", "mtriple": variants[0].machine.triple})
    names = tuple(part.variant for part in parts)
    choice = dispatch_ir(names, entry_points(variants[0].program, ""), features)
    return merge(parts, choice, target)


def with_batch(compiled: Compiled) -> str:
    """LLVM IR that TVM's runtime can call in-process."""
    return compiled.llvm + batch_ir(compiled.program, compiled.suffix)
