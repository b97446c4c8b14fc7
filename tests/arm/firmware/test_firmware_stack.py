"""Worst-case stack, against frames that are known and against the compiler's own count."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware.stack import StackRow, stack_rows
from mfn_compile.errors import InternalCheckError
from tests.arm.firmware import stub

LEAF = """
mfn_leaf:
    sub sp, sp, #48
    str x0, [sp, #8]
    add sp, sp, #48
    ret
"""
CALLER = """
mfn_caller:
    stp x29, x30, [sp, #-32]!
    mov x29, sp
    bl mfn_leaf
    ldp x29, x30, [sp], #32
    b mfn_leaf
"""
ALIGNED = """
mfn_aligned:
    stp x29, x30, [sp, #-16]!
    mov x29, sp
    sub x9, sp, #1, lsl #12
    and sp, x9, #0xffffffffffffffc0
    bl mfn_leaf
    mov sp, x29
    ldp x29, x30, [sp], #16
    ret
"""
LARGE = """
mfn_large:
    mov x12, #40000
    sub sp, sp, x12
    str xzr, [sp]
    cbz x0, 1f
    add sp, sp, x12
    ret
1:  add sp, sp, x12
    ret
"""
EARLY = """
mfn_early:
    cbz x0, 1f
    str x19, [sp, #-16]!
    bl mfn_leaf
    ldr x19, [sp], #16
1:  ret
"""
SELF_LOOP = """
mfn_loop:
    subs w0, w0, #1
    b.ne mfn_loop
    ret
"""
# Hands mfn_task, of another section, to a function that it was given.
PARALLEL = """
mfn_embed_parallel:
    stp x29, x30, [sp, #-32]!
    mov x8, x3
    adrp x1, task
    add x1, x1, :lo12:task
    blr x8
    bl mfn_leaf
    ldp x29, x30, [sp], #32
    ret
    .size mfn_embed_parallel, .-mfn_embed_parallel
    .section .text.task, "ax"
    .type task, %function
task:
    stp x29, x30, [sp, #-64]!
    bl mfn_leaf
    ldp x29, x30, [sp], #64
    ret
    .size task, .-task
"""
CHOICE = """
mfn_embed_parallel_any:
    sub sp, sp, #16
    str x30, [sp]
    bl mfn_embed_parallel
    ldr x30, [sp]
    add sp, sp, #16
    ret
"""
REFUSED = {
    "calls itself: mfn_f -> mfn_f": "mfn_f: bl mfn_f\n ret\n",
    "calls itself: mfn_f -> a.o:g -> mfn_f": (
        "mfn_f: bl g\n ret\n.size mfn_f, .-mfn_f\n"
        ".type g, %function\ng: str x30, [sp, #-16]!\n bl mfn_f\n ldr x30, [sp], #16\n ret\n"
    ),
    "sub sp, sp, x0 at +0x0: the stack pointer gets an unknown value": (
        "mfn_f: sub sp, sp, x0\n add sp, sp, x0\n ret\n"
    ),
    "mov sp, x1": "mfn_f: mov sp, x1\n ret\n",
    "two paths meet": "mfn_f: cbz x0, 1f\n sub sp, sp, #16\n1: ret\n",
    "16 bytes are left on the stack": "mfn_f: sub sp, sp, #16\n ret\n",
    "rises above the caller's frame": "mfn_f: add sp, sp, #16\n ret\n",
    "blr x1 at +0x0: its target is not known": "mfn_f: blr x1\n ret\n",
    "br x1": "mfn_f: br x1\n",
    "it calls puts, which is not there": "mfn_f: bl puts\n ret\n",
    "a register is added": "mfn_f: ld1 {v0.16b}, [sp], x1\n ret\n",
    "is no instruction": "mfn_f: .inst 0xffffffff\n ret\n",
    # What x9 holds is lost by the call, so that it cannot come back.
    "mov sp, x9 at +0xc": "mfn_f: mov x9, sp\n sub sp, sp, #16\n bl memcpy\n mov sp, x9\n ret\n",
    "mov sp, x29 at +0xc": (
        "mfn_f: mov x29, sp\n sub sp, sp, #16\n ldr x29, [x0]\n mov sp, x29\n ret\n"
    ),
}


def _assemble(folder: Path, *functions: str) -> bytes:
    source = "\n".join(f".globl {_name(f)}\n.type {_name(f)}, %function\n{f}" for f in functions)
    return stub.compile_c(folder, "a", f".text\n{source}\n", suffix="s")


def _name(function: str) -> str:
    return function.strip().split(":", 1)[0]


def _rows(*contents: bytes) -> dict[str, StackRow]:
    objects = {f"{chr(97 + i)}.o": content for i, content in enumerate(contents)}
    return {row.function: row for row in stack_rows(objects)}


def test_frames_add_up_along_the_calls(tmp_path: Path) -> None:
    rows = _rows(_assemble(tmp_path, LEAF, CALLER, EARLY, SELF_LOOP))
    assert rows["mfn_leaf"].bytes == 48
    assert rows["mfn_caller"].bytes == 32 + 48  # the call, not the jump at the end
    assert rows["mfn_caller"].chain == ("mfn_caller", "mfn_leaf")
    assert rows["mfn_early"].bytes == 16 + 48
    assert rows["mfn_loop"].bytes == 0


def test_calls_go_from_object_to_object(tmp_path: Path) -> None:
    rows = _rows(_assemble(tmp_path, LEAF), _assemble(tmp_path, CALLER))
    assert rows["mfn_caller"].bytes == 80


def test_a_jump_at_the_end_adds_nothing_to_the_frame(tmp_path: Path) -> None:
    tail = "mfn_tail: sub sp, sp, #16\n add sp, sp, #16\n b mfn_leaf\n"
    assert _rows(_assemble(tmp_path, LEAF, tail))["mfn_tail"].bytes == 48


def test_aligned_frames_count_their_hole(tmp_path: Path) -> None:
    row = _rows(_assemble(tmp_path, LEAF, ALIGNED))["mfn_aligned"]
    assert row.bytes == 16 + 4096 + 63 + 48


def test_large_frames_come_through_a_register(tmp_path: Path) -> None:
    assert _rows(_assemble(tmp_path, LARGE))["mfn_large"].bytes == 40000


@pytest.mark.parametrize("problem", REFUSED)
def test_what_has_no_known_stack_is_refused(tmp_path: Path, problem: str) -> None:
    with pytest.raises(InternalCheckError) as caught:
        _rows(_assemble(tmp_path, REFUSED[problem]))
    assert problem in str(caught.value).replace("It calls", "it calls")
    assert "mfn_f" in str(caught.value)


def test_memcpy_is_named_and_not_counted(tmp_path: Path) -> None:
    row = _rows(
        _assemble(tmp_path, "mfn_f: str x30, [sp, #-16]!\n bl memcpy\n ldr x30, [sp], #16\n ret\n")
    )["mfn_f"]
    assert (row.bytes, row.external) == (16, ("memcpy",))


def test_tasks_count_where_a_given_function_is_called(tmp_path: Path) -> None:
    rows = _rows(_assemble(tmp_path, LEAF, CHOICE, PARALLEL))
    row = rows["mfn_embed_parallel"]
    assert (row.bytes, row.task) == (32 + 64 + 48, 64 + 48)
    assert row.chain == ("mfn_embed_parallel", "task", "mfn_leaf")
    above = rows["mfn_embed_parallel_any"]
    assert (above.bytes, above.task) == (16 + row.bytes, row.task)
    assert rows["mfn_leaf"].task == 0


def test_gcc_counts_the_same(tmp_path: Path) -> None:
    source = """
        void mfn_use(int *p, int n) { for (int i = 0; i < n; i++) p[i] ^= p[i + 1]; }
        static __attribute__((noinline)) int local(int n) {
            int a[300];
            for (int i = 0; i < 300; i++) a[i] = i * n;
            mfn_use(a, n);
            return a[n];
        }
        int mfn_f(int n) { int a[25000]; a[n] = 2; mfn_use(a, n); return local(n) + a[n + 1]; }
        double mfn_g(double x) { volatile double a[3] = {x}; return local(3) + a[1] + mfn_f(2); }
    """
    content = stub.compile_c(tmp_path, "kernel", source, "-fstack-usage", "-std=c99")
    lines = (tmp_path / "kernel.su").read_text().splitlines()
    own = {line.split("\t")[0].rsplit(":", 1)[1]: int(line.split("\t")[1]) for line in lines}
    rows = {row.function: row.bytes for row in stack_rows({"kernel.o": content})}
    below = max(own["mfn_use"], own["local"] + own["mfn_use"])
    assert rows["mfn_use"] == own["mfn_use"]
    assert rows["mfn_f"] == own["mfn_f"] + below
    assert rows["mfn_g"] == own["mfn_g"] + rows["mfn_f"]


def test_every_function_of_the_stub_has_a_row(tmp_path: Path) -> None:
    rows = {row.function: row for row in stack_rows(stub.objects(tmp_path))}
    assert len(rows) == 10
    assert rows["mfn_embed"].bytes > rows["mfn_has_dotprod"].bytes > 0


def test_aliases_and_data_between_code_are_understood(tmp_path: Path) -> None:
    source = (
        "mfn_f: str x30, [sp, #-16]!\n bl mfn_alias\n ldr x30, [sp], #16\n ret\n .word -1, -1\n"
        ".globl mfn_alias\n.type mfn_alias, %function\n.globl mfn_other\n"
        ".type mfn_other, %function\nmfn_alias:\nmfn_other: sub sp, sp, #32\n"
        " add sp, sp, #32\n ret\n"
    )
    rows = _rows(_assemble(tmp_path, source))
    assert {name: row.bytes for name, row in rows.items()} == {
        "mfn_alias": 32,
        "mfn_f": 48,
        "mfn_other": 32,
    }
