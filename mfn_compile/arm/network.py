"""LLVM IR of the network around its kernels: constants, the calls in order, the C entry points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.graph import Input
from mfn_compile.arm.plan import ALIGNMENT, Plan
from mfn_compile.arm.program import (
    IMAGE,
    Call,
    Constant,
    Place,
    Program,
    Step,
    has_quantized_input,
)

ERROR_NULL, ERROR_ALIGNMENT = 1, 2  # as in mfn.h
ATTRIBUTES = "#1000"
MARK = "mfn_mark"
_MEMCPY = "llvm.memcpy.p0.p0.i64"


@dataclass(frozen=True)
class Layout:
    """Constants in one block of .rodata: their offsets and the bytes."""

    offsets: tuple[int, ...]
    content: bytes


def lay_out(constants: Sequence[NDArray[Any]]) -> Layout:
    """Concatenate constants, each aligned; equal ones are stored once."""
    content, offsets, known = bytearray(), [], dict[bytes, int]()
    for array in constants:
        raw = array.tobytes()
        if raw not in known:
            content += bytes(-len(content) % ALIGNMENT)
            known[raw] = len(content)
            content += raw
        offsets.append(known[raw])
    return Layout(tuple(offsets), bytes(content))


def entry_points(program: Program, suffix: str) -> tuple[str, ...]:
    """The C functions of a network: of pixels, and of int8 values where its input is int8."""
    both = (f"mfn_embed{suffix}", f"mfn_embed_quantized{suffix}")
    return both if has_quantized_input(program.graph) else both[:1]


def network_ir(
    program: Program,
    plan: Plan,
    kernels: str,
    suffix: str,
    *,
    marks: bool = False,
    layout: Layout | None = None,
) -> str:
    """The whole module: `kernels` (LLVM IR of TVM) and the functions that call them.

    Defines the `entry_points`; everything else is internal. With `marks` it calls
    `void mfn_mark(int32_t)`, which is not in it, with 0, 1, ... before each kernel call of
    mfn_embed and with their number behind the last one, so that somebody can read a clock there.
    `layout` begins with the program's constants and may have more, for functions beside these.
    """
    layout = layout or lay_out(program.constants)
    first, *rest = program.steps
    emit = Emitter(plan, layout.offsets, _first_tensor(program), marks=marks)
    image = plan.offset(_first_tensor(program))
    start = "\n".join(emit.step(first, quantized=False))
    lines = [line for step in rest for line in emit.step(step, quantized=True)]
    body = "\n".join([*lines, *emit.mark()])
    starts = (
        (start, f"getelementptr i8, ptr %workspace, i64 {image}"),
        ("", "getelementptr i8, ptr %image, i64 0"),
    )
    parts = [
        kernels,
        f"@mfn_constants = internal unnamed_addr constant [{len(layout.content)} x i8] "
        f'c"{_escaped(layout.content)}", align {ALIGNMENT}',
        f"declare void @{MARK}(i32)" if marks else "",
        "" if f"@{_MEMCPY}(" in kernels else f"declare void @{_MEMCPY}(ptr, ptr, i64, i1)",
        "define internal void @mfn_run(ptr %input, ptr %embedding, ptr %workspace) "
        f"{ATTRIBUTES} {{",
        body,
        *result_ir(program, plan),
        "  ret void",
        "}",
        *(
            entry_ir(name, _run(*begin))
            for name, begin in zip(entry_points(program, suffix), starts, strict=False)
        ),
        f"attributes {ATTRIBUTES} = {{ {_attributes(kernels)} }}",
    ]
    return "\n".join(parts) + "\n"


def batch_ir(program: Program, suffix: str) -> str:
    """A function for TVM's runtime to call in-process: count, images, embeddings, workspace, flag.

    Its arguments and result are TVMFFIAny values: 16 bytes, the payload in the upper 8. A flag of
    1 says that the images are int8 already; a network without a quantized input ignores it.
    """
    entries = entry_points(program, suffix)
    pixels = program.graph.height * program.graph.width * 3
    loads = "\n".join(
        f"  %p{i} = getelementptr i8, ptr %args, i64 {16 * i + 8}\n  %v{i} = load i64, ptr %p{i}"
        for i in range(5)
    )
    return f"""
define i32 @__tvm_ffi_mfn_batch(ptr %self, ptr %args, i32 %count, ptr %result) {ATTRIBUTES} {{
entry:
{loads}
  %workspace = inttoptr i64 %v3 to ptr
  %quantized = icmp ne i64 %v4, 0
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %more = icmp slt i64 %i, %v0
  br i1 %more, label %image, label %end
image:
  %skip_in = mul i64 %i, {pixels}
  %at_in = add i64 %v1, %skip_in
  %in = inttoptr i64 %at_in to ptr
  %skip_out = mul i64 %i, {program.graph.embedding * 4}
  %at_out = add i64 %v2, %skip_out
  %out = inttoptr i64 %at_out to ptr
  br i1 %quantized, label %integers, label %pixels
integers:
  %a = call i32 @{entries[-1]}(ptr %in, ptr %out, ptr %workspace)
  br label %done
pixels:
  %b = call i32 @{entries[0]}(ptr %in, ptr %out, ptr %workspace)
  br label %done
done:
  %next = add i64 %i, 1
  br label %loop
end:
  store i64 0, ptr %result
  ret i32 0
}}
"""


@dataclass
class Emitter:
    """Writes calls of kernels; `offsets` are those of the program's constants."""

    plan: Plan
    offsets: Sequence[int]
    image_tensor: str = ""
    marks: bool = False
    count: int = 0
    calls: int = 0

    def mark(self) -> list[str]:
        """The line that tells the number of the call that follows, where marks are wanted."""
        return [f"  call void @{MARK}(i32 {self.calls})"] if self.marks else []

    def step(self, step: Step, *, quantized: bool) -> list[str]:
        """Lines of LLVM IR; the first tensor is %input inside of mfn_run."""
        return [line for call in step.calls for line in self.call(call, quantized=quantized)]

    def call(
        self,
        call: Call,
        *,
        quantized: bool = False,
        span: tuple[str, str] | None = None,
        moved: tuple[str, str] | None = None,
    ) -> list[str]:
        """Lines of one call.

        Args:
            quantized: the first tensor is %input.
            span: the units to do, as i32 values of the code around; by default all.
            moved: a buffer, and the i64 value by which it lies behind its place in the plan.
        """
        lines, names = [], []
        for operand in call.operands:
            name = self._name()
            lines.append(f"  {name} = {self._address(operand, quantized)}")
            if moved is not None and isinstance(operand, Place) and operand.buffer == moved[0]:
                base, name = name, self._name()
                lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {moved[1]}")
            names.append(f"ptr {name}")
        names += [f"i32 {bound}" for bound in span or call.span]
        mark = self.mark()
        self.calls += 1
        return [*lines, *mark, f"  call void @{call.kernel}({', '.join(names)})"]

    def _name(self) -> str:
        self.count += 1
        return f"%a{self.count - 1}"

    def _address(self, operand: Place | Constant, quantized: bool) -> str:
        if isinstance(operand, Constant):
            return f"getelementptr i8, ptr @mfn_constants, i64 {self.offsets[operand.index]}"
        if operand.buffer == IMAGE:
            return f"getelementptr i8, ptr %image, i64 {operand.offset}"
        if quantized and operand.buffer == self.image_tensor:
            return f"getelementptr i8, ptr %input, i64 {operand.offset}"
        offset = self.plan.offset(operand.buffer) + operand.offset
        return f"getelementptr i8, ptr %workspace, i64 {offset}"


def _first_tensor(program: Program) -> str:
    first = program.graph.nodes[0]
    assert isinstance(first, Input)
    return first.output


def result_ir(program: Program, plan: Plan) -> list[str]:
    """Lines that copy the network's result from %workspace to %embedding."""
    place, width = plan.offset(program.graph.output), program.graph.embedding * 4
    return [
        f"  %result = getelementptr i8, ptr %workspace, i64 {place}",
        f"  call void @{_MEMCPY}(ptr align 4 %embedding, ptr align 64 %result, "
        f"i64 {width}, i1 false)",
    ]


def _run(start: str, source: str) -> str:
    return f"""{start}
  %source = {source}
  call void @mfn_run(ptr %source, ptr %embedding, ptr %workspace)"""


def entry_ir(
    name: str,
    body: str,
    *,
    more: Sequence[str] = (),
    needed: str = "",
    begin: str = "",
    section: str = "",
) -> str:
    """A C function that checks its arguments, runs `body` and returns 0.

    Args:
        more: names of pointers that it takes behind image, embedding and workspace.
        needed: one of these that must not be NULL.
        begin: lines at its beginning.
        section: of the object; by default the module's own.
    """
    place = f' section "{section}"' if section else ""
    parameters = ", ".join(f"ptr %{p}" for p in ("image", "embedding", "workspace", *more))
    also = [
        f"  %no_{needed} = icmp eq ptr %{needed}, null",
        f"  %null = or i1 %nothing, %no_{needed}",
    ]
    return f"""
define i32 @{name}({parameters}) {ATTRIBUTES}{place} {{
{begin}
  %no_image = icmp eq ptr %image, null
  %no_embedding = icmp eq ptr %embedding, null
  %no_workspace = icmp eq ptr %workspace, null
  %missing = or i1 %no_image, %no_embedding
  %{"nothing" if needed else "null"} = or i1 %missing, %no_workspace
{chr(10).join(also) if needed else ""}
  br i1 %null, label %bad_pointer, label %check
bad_pointer:
  ret i32 {ERROR_NULL}
check:
  %address = ptrtoint ptr %workspace to i64
  %low = and i64 %address, {ALIGNMENT - 1}
  %aligned = icmp eq i64 %low, 0
  br i1 %aligned, label %run, label %bad_alignment
bad_alignment:
  ret i32 {ERROR_ALIGNMENT}
run:
{body}
  ret i32 0
}}"""


def _attributes(kernels: str) -> str:
    """The kernels' CPU and features, for the functions around them."""
    found = re.search(r'"target-cpu"="[^"]*"(?: "target-features"="[^"]*")?', kernels)
    return f"nounwind {found.group(0)}" if found else "nounwind"


def _escaped(content: bytes) -> str:
    pairs = np.array([f"\\{value:02X}" for value in range(256)])
    return "".join(pairs[np.frombuffer(content, np.uint8)])
