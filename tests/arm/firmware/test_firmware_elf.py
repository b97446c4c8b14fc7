"""What may and what may not be in an object for firmware."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mfn_compile.arm.firmware.elf import check_object, check_objects, read_object, section_sizes
from mfn_compile.arm.firmware.stack import stack_rows
from mfn_compile.errors import ExitCode, InternalCheckError
from tests.arm.firmware import stub

REFUSED = {
    "needs puts from outside": "int puts(const char *); int mfn_f(void) { return puts(0); }",
    "exports helper": "int helper(void) { return 1; } int mfn_f(void) { return helper(); }",
    ".data holds 4 bytes that can be written": "int mfn_v = 3; int mfn_f(void) { return mfn_v++; }",
    ".bss holds 16 bytes that can be written": (
        "static int v[4]; int mfn_f(int i) { return v[i & 3]++; }"
    ),
    "mfn_common is a COMMON symbol": (
        "int mfn_common __attribute__((common)); int mfn_f(void) { return mfn_common; }"
    ),
    "for each thread": "static __thread int v; int mfn_f(void) { return v++; }",
    ".init_array holds 8 bytes": (
        '__attribute__((constructor)) static void f(void) { __asm__ volatile(""); }'
    ),
    ".text has 1 relocations R_AARCH64_ABS64": (
        '__asm__(".text\\n.balign 8\\n.quad mfn_f\\n"); int mfn_f(void) { return 1; }'
    ),
    ".rodata has 2 relocations R_AARCH64_ABS64": (
        '__asm__(".section .rodata\\n.balign 8\\n.quad mfn_f, mfn_f\\n.text\\n");'
        "int mfn_f(void) { return 1; }"
    ),
    ".rodata has 1 relocations R_AARCH64_ABS32": (
        '__asm__(".section .rodata\\n.word mfn_f\\n.text\\n"); int mfn_f(void) { return 1; }'
    ),
    ".text has 1 relocations of type 263": (  # MOVW_UABS_G0: an absolute address in code
        '__asm__("movz x0, #:abs_g0:mfn_f"); int mfn_f(void) { return 1; }'
    ),
    ".both is code that can be written": (
        '__asm__(".section .both,\\"awx\\"\\nnop\\n.text"); int mfn_f(void) { return 1; }'
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_firmware_cannot_take_is_named(tmp_path: Path, problem: str) -> None:
    content = stub.compile_c(tmp_path, "kernel", REFUSED[problem])
    with pytest.raises(InternalCheckError) as caught:
        check_object("kernel.o", content)
    assert problem in str(caught.value)
    assert "kernel.o" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERNAL_CHECK


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    source = "int v = 3; int puts(const char *); int mfn_f(void) { return v++ + puts(0); }"
    content = stub.compile_c(tmp_path, "kernel", source)
    with pytest.raises(InternalCheckError, match=r"puts.*exports v.*\.data holds"):
        check_object("kernel.o", content)


def test_memcpy_constants_and_constant_pointers_are_fine(tmp_path: Path) -> None:
    source = """
        #include <string.h>
        static const signed char table[1000] = {1, 2, 3};
        static const signed char *const rows[2] = {table, table + 9};
        void mfn_f(void *to, const void *from, unsigned long n) { memcpy(to, from, n); }
        int mfn_g(int row, int i) { return rows[row][i]; }
    """
    content = stub.compile_c(tmp_path, "kernel", source, "-fPIC")
    facts = check_object("kernel.o", content)
    assert facts.undefined == ("memcpy",)
    assert facts.exported == ("mfn_f", "mfn_g")
    assert (facts.data, facts.bss) == (0, 0)
    assert facts.rodata == 1000 + 16
    assert 0 < facts.text < 100


def test_sections_of_their_own_count(tmp_path: Path) -> None:
    source = "static const int t[9] = {1}; int mfn_f(int i) { return t[i]; }"
    options = ("-ffunction-sections", "-fdata-sections", "-g")
    facts = read_object("kernel.o", stub.compile_c(tmp_path, "kernel", source, *options))
    assert facts.rodata == 36
    assert facts.text > 0
    assert facts.other > 0  # .eh_frame; what -g adds is not loaded


def test_sections_of_one_name_add_up(tmp_path: Path) -> None:
    source = """
        __attribute__((section(".text.mfn_a"))) int mfn_f(int i) { return i * 3; }
        static const int t[9] __attribute__((section(".rodata.mfn_a"))) = {1};
        __attribute__((section(".text.mfn_b"))) int mfn_g(int i) { return t[i]; }
    """
    sizes = section_sizes("a.o", stub.compile_c(tmp_path, "a", source, "-g"))
    assert sizes[".rodata.mfn_a"] == 36
    assert sizes[".text.mfn_a"] > 0
    assert sizes[".text.mfn_b"] > sizes[".text.mfn_a"] - 4
    assert not any(name.startswith(".debug") for name in sizes)


def test_objects_may_use_each_other(tmp_path: Path) -> None:
    objects = stub.objects(tmp_path)
    facts = check_objects(objects)
    assert [row.name for row in facts] == list(objects)
    dispatcher = facts[-1]
    assert "mfn_embed_neon" in dispatcher.undefined
    with pytest.raises(InternalCheckError, match="mfn_embed_neon"):
        check_object(dispatcher.name, objects[dispatcher.name])


def test_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int mfn_f(void) { return 1; }")
    stub.succeed(stub.cross(), "-shared", tmp_path / "a.c", "-o", tmp_path / "a.so")
    with pytest.raises(InternalCheckError, match="no relocatable"):
        read_object("a.so", (tmp_path / "a.so").read_bytes())
    if not stub.native_aarch64():
        stub.succeed(stub.tool("gcc"), "-c", tmp_path / "a.c", "-o", tmp_path / "a.o")
        with pytest.raises(InternalCheckError, match="no relocatable"):
            read_object("a.o", (tmp_path / "a.o").read_bytes())


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\0" * 9])
def test_what_is_no_elf_is_refused(content: bytes) -> None:
    with pytest.raises(InternalCheckError, match="cannot go into firmware"):
        read_object("a.o", content)


def test_damaged_objects_end_in_a_sentence(tmp_path: Path) -> None:
    content = stub.objects(tmp_path, variants=["neon"])["mfn_neon.o"]
    rng = random.Random(3)
    damaged = [content[:length] for length in range(0, len(content), 131)]
    for _ in range(100):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for wrong in damaged:
        for look in (check_object, lambda name, c: stack_rows({name: c})):
            try:
                look("a.o", wrong)
            except InternalCheckError:
                refused += 1
    assert refused > 30
