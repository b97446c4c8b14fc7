"""The library of a target: every variant's code in one object, its sizes, stack and census."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfn_compile.arm.codegen import (
    Compiled,
    Machine,
    Threaded,
    compile_network,
    library_ir,
    object_code,
)
from mfn_compile.arm.constant_channels import (
    channels_of,
    multiply_adds,
    without_constant_channels,
)
from mfn_compile.arm.explain import describe_schedules
from mfn_compile.arm.firmware.census import Kind, check_integer
from mfn_compile.arm.firmware.elf import ObjectFacts, check_object, section_sizes
from mfn_compile.arm.firmware.facts import VARIANTS, SizeRow
from mfn_compile.arm.firmware.parts import CallParts, Parts, PhaseParts, VariantParts
from mfn_compile.arm.firmware.stack import StackRow, stack_rows
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.parallel import Grain
from mfn_compile.arm.plan import Plan
from mfn_compile.arm.prepared import prepared
from mfn_compile.arm.program import Program
from mfn_compile.arm.schedules import Schedules, shipped
from mfn_compile.constant_result import ConstantChannels
from mfn_compile.results import CodeSize, KernelCensus, MemoryPlan, PlanRow
from mfn_compile.schedule_result import KernelSchedule
from mfn_compile.target import Code

MEMBER = "mfn.o"
# Android and other platforms keep x18 for themselves; code without it runs everywhere.
RESERVED = ("reserve-x18",)
_KINDS: dict[str, Kind] = {"dense": "dense-int8", "depthwise": "depthwise-int8", "float": "float"}


@dataclass(frozen=True, eq=False)
class Library:
    """Machine code with everything that is known about it.

    `parts` are the sizes of the variants, and of what belongs to none of them; `threads` says
    what mfn_embed_parallel hands out.
    """

    content: bytes
    variants: tuple[CodeSize, ...]
    plan: MemoryPlan
    constant: ConstantChannels | None
    census: tuple[KernelCensus, ...]
    schedules: tuple[KernelSchedule, ...]
    stack: tuple[StackRow, ...]
    parts: tuple[SizeRow, ...]
    parallel_workspace: int
    threads: Parts

    @property
    def workspace(self) -> int:
        """Bytes of scratch memory that a call needs."""
        return self.plan.peak

    @property
    def parallel_tasks(self) -> int:
        """Tasks of one parallel_for, at most."""
        return max(phase.tasks for each in self.threads.variants for phase in each.phases)


def build_library(
    graph: IntegerGraph, code: Code, schedules: Sequence[Schedules] | None = None
) -> Library:
    """Compile every variant of `code` and look at the machine code that came out.

    Channels that no image can change are left out (see `without_constant_channels`), the others
    get an order that kernels like (see `channel_order.ordered`).

    Args:
        schedules: of the kernels of each variant; those that ship by default.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
        InternalCheckError: the object needs a symbol from outside, has a writable global, or an
            int8 kernel does not multiply in integers.
    """
    ours = schedules or [shipped(v.cpu, v.name) for v in code.variants]
    smaller = without_constant_channels(graph)
    built = prepared(graph)
    compiled = [
        compile_network(
            built,
            Machine(variant.name, code.triple, variant.cpu, (*variant.features, *RESERVED)),
            suffix=f"_{variant.name}",
            schedules=chosen,
            threads=Grain(),
        )
        for variant, chosen in zip(code.variants, ours, strict=True)
    ]
    content = object_code(library_ir(compiled, RESERVED))
    checked = check_object(MEMBER, content)
    stack = stack_rows({MEMBER: content})
    census = [row for each in compiled for row in _census(content, each)]
    largest = max(compiled, key=lambda c: c.plan.peak)
    sizes = tuple(_size(content, variant.name, variant.cpu, stack) for variant in code.variants)
    threaded = {c.machine.isa: c.threaded for c in compiled if c.threaded is not None}
    return Library(
        content=content,
        variants=sizes,
        plan=_describe(largest.plan, largest.program),
        constant=None if smaller is graph else _left_out(graph, smaller),
        census=tuple(census),
        schedules=tuple(row for each in compiled for row in describe_schedules(each)),
        stack=stack,
        parts=_parts(content, checked, sizes),
        parallel_workspace=max(each.plan.peak for each in threaded.values()),
        threads=Parts(variants=tuple(_tasks(name, each) for name, each in threaded.items())),
    )


def _left_out(whole: IntegerGraph, smaller: IntegerGraph) -> ConstantChannels:
    return ConstantChannels(
        dropped=channels_of(whole) - channels_of(smaller),
        channels=channels_of(whole),
        multiply_adds=multiply_adds(smaller),
        whole_multiply_adds=multiply_adds(whole),
    )


def _tasks(variant: str, threaded: Threaded) -> VariantParts:
    phases = [
        PhaseParts(
            layers=phase.layers,
            calls=tuple(
                CallParts(
                    kernel=share.call.kernel,
                    parts=tuple(end - begin for begin, end in share.spans),
                )
                for share in phase.shares
            ),
        )
        for phase in threaded.parallel.phases
    ]
    return VariantParts.model_validate({"variant": variant, "phases": phases})


def _census(content: bytes, compiled: Compiled) -> list[KernelCensus]:
    """Checked rows of one variant's kernels."""
    variant = compiled.machine.isa
    assert variant in VARIANTS
    programs = compiled.programs
    prefix = f"mfn_{variant}_"
    known = {kernel: kind for program in programs for kernel, kind in program.kinds().items()}
    kinds = {prefix + kernel: _KINDS[kind] for kernel, kind in known.items() if kind in _KINDS}
    kinds = {name: kind for name, kind in kinds.items() if not name.startswith(f"{prefix}patches_")}
    used: dict[str, dict[str, None]] = {}
    for program in programs:  # both mostly call the same kernels, for the same layers
        for kernel, names in program.layers().items():
            used.setdefault(prefix + kernel, {}).update(dict.fromkeys(names))
    layers = {name: list(users)[-1] for name, users in used.items()}
    rows = check_integer(MEMBER, content, variant, kinds, layers, scope=prefix)
    found = []
    for row in rows:
        inner, outer = row.inner.model_dump(), row.outer.model_dump()
        counts = {key: inner[key] + outer[key] for key in inner}
        found.append(
            KernelCensus(
                kernel=row.function.removeprefix(prefix),
                variant=variant,
                kind=row.kind or "",
                layers=len(used[row.function]),
                **{key: counts[key] for key in KernelCensus.model_fields if key in counts},
            )
        )
    return found


def _size(content: bytes, variant: str, cpu: str, stack: tuple[StackRow, ...]) -> CodeSize:
    sections = section_sizes(MEMBER, content)
    return CodeSize(
        variant=variant,
        cpu=cpu,
        text=sections[f".text.mfn_{variant}"] + sections[f".text.mfn_{variant}.parallel"],
        rodata=sections[f".rodata.mfn_{variant}"],
        stack=max(row.bytes for row in stack if row.function.endswith(f"_{variant}")),
    )


def _parts(
    content: bytes, whole: ObjectFacts, variants: tuple[CodeSize, ...]
) -> tuple[SizeRow, ...]:
    """The variants, what only threads need apart; then the choice of one, and vector constants
    that all kernels share.
    """
    sections = section_sizes(MEMBER, content)
    rows = []
    for variant in variants:
        apart = sections[f".text.mfn_{variant.variant}.parallel"]
        name = variant.variant
        rows.append(SizeRow(name=name, text=variant.text - apart, rodata=variant.rodata))
        rows.append(SizeRow(name=f"{name}, for threads", text=apart, rodata=0))
    rest = SizeRow(
        name="dispatcher, shared constants",
        text=whole.text - sum(row.text for row in rows),
        rodata=whole.rodata - sum(row.rodata for row in rows),
    )
    return (*rows, rest)


def _describe(plan: Plan, program: Program) -> MemoryPlan:
    steps = [step.layer for step in program.steps]

    def layer(index: int) -> str:
        return steps[index] if index < len(steps) else "the caller"

    return MemoryPlan(
        peak=plan.peak,
        lower_bound=plan.lower_bound,
        rows=tuple(
            PlanRow(
                tensors=block.names,
                offset=block.offset,
                bytes=block.bytes,
                first=layer(block.first),
                last=layer(block.last),
            )
            for block in plan.allocations
        ),
    )
