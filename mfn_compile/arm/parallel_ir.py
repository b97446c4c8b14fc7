"""LLVM IR of mfn_embed_parallel: a function a task, and the entry point that hands them out."""

from __future__ import annotations

from collections.abc import Sequence

from mfn_compile.arm.network import ATTRIBUTES, Emitter, entry_ir, result_ir
from mfn_compile.arm.parallel import ParallelProgram, Phase
from mfn_compile.arm.plan import Plan

PARALLEL = "mfn_embed_parallel"
# Apart from the rest, so that a linker can drop it from a program that does not call it.
SECTION = ".text.mfn.parallel"
_GIVEN = ("parallel_for", "context")


def parallel_ir(
    parallel: ParallelProgram,
    plan: Plan,
    offsets: Sequence[int],
    tables: Sequence[int],
    suffix: str,
) -> str:
    """Functions to stand behind `network.network_ir` of a module that has the same kernels.

    Args:
        plan: of `parallel.program`.
        offsets: of that program's constants in mfn_constants.
        tables: likewise of the tables of all shares, phase by phase.
    """
    places, emit = iter(tables), Emitter(plan, offsets)
    tasks, body = [], []
    for number, phase in enumerate(parallel.phases):
        at = [next(places) for _ in phase.shares]
        if phase.tasks == 1:
            body += [line for share in phase.shares for line in emit.call(share.call)]
            continue
        tasks.append(_task(number, phase, Emitter(plan, offsets), at))
        body.append(
            f"  call void %parallel_for(ptr %context, ptr @mfn_task_{number}, ptr %given, "
            f"i32 {phase.tasks})"
        )
    begin = [
        "  %given = alloca { ptr, ptr }, align 8",
        "  store ptr %image, ptr %given, align 8",
        "  %second = getelementptr i8, ptr %given, i64 8",
        "  store ptr %workspace, ptr %second, align 8",
    ]
    text = "\n".join([*body, *result_ir(parallel.program, plan)])
    entry = entry_ir(
        f"{PARALLEL}{suffix}",
        text,
        more=_GIVEN,
        needed=_GIVEN[0],
        begin="\n".join(begin),
        section=SECTION,
    )
    return "\n".join([*tasks, entry]) + "\n"


def _task(number: int, phase: Phase, emit: Emitter, tables: Sequence[int]) -> str:
    """`void (void *given, int32_t index)`: the part `index` of every call of the phase."""
    lines = [
        f"define internal void @mfn_task_{number}(ptr %given, i32 %index) {ATTRIBUTES} "
        f'section "{SECTION}" {{',
        "  %image = load ptr, ptr %given, align 8",
        "  %second = getelementptr i8, ptr %given, i64 8",
        "  %workspace = load ptr, ptr %second, align 8",
        "  %i = zext i32 %index to i64",
        "  %row = shl i64 %i, 3",
    ]
    for order, (share, table) in enumerate(zip(phase.shares, tables, strict=True)):
        begin, end, own = f"%begin{order}", f"%end{order}", f"%own{order}"
        lines += [
            f"  %table{order} = getelementptr i8, ptr @mfn_constants, i64 {table}",
            f"  %at{order} = getelementptr i8, ptr %table{order}, i64 %row",
            f"  {begin} = load i32, ptr %at{order}, align 4",
            f"  %behind{order} = getelementptr i8, ptr %at{order}, i64 4",
            f"  {end} = load i32, ptr %behind{order}, align 4",
        ]
        moved = None
        if share.own is not None:
            lines.append(f"  {own} = mul i64 %i, {share.stride}")
            moved = (share.own, own)
        lines += emit.call(share.call, span=(begin, end), moved=moved)
    return "\n".join([*lines, "  ret void", "}"])
