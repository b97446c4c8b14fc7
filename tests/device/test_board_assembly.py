"""Machine code to text that llvm-mca takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.device.assembly import disassemble, without_target, without_write_back
from tests.device.programs import instruction, machine_code


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ldr q0, [x1], #0x10", ["ldr q0, [x1]", "add x1, x1, #0x10"]),
        ("ldr q0, [x1], #-0x10", ["ldr q0, [x1]", "sub x1, x1, #0x10"]),
        ("ldr x0, [x1, #8]!", ["add x1, x1, #8", "ldr x0, [x1]"]),
        ("stp x29, x30, [sp, #-0x20]!", ["sub sp, sp, #0x20", "stp x29, x30, [sp]"]),
        ("ld1 {v0.16b, v1.16b}, [x2], x3", ["ld1 {v0.16b, v1.16b}, [x2]", "add x2, x2, x3"]),
        ("ld1 {v0.s}[1], [x2], #4", ["ld1 {v0.s}[1], [x2]", "add x2, x2, #4"]),
        ("ldr q0, [x1, #0x10]", ["ldr q0, [x1, #0x10]"]),
        ("ldr q0, [x1, x2, lsl #4]", ["ldr q0, [x1, x2, lsl #4]"]),
        ("mov v0.s[1], v1.s[0]", ["mov v0.s[1], v1.s[0]"]),
    ],
)
def test_write_back_becomes_an_addition(text: str, wanted: list[str]) -> None:
    assert [one.text for one in without_write_back(instruction(text))] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("b.ne #0xfffffffffffffff0", "b.ne #0"),
        ("cbz x3, #0x1234", "cbz x3, #0"),
        ("tbnz w3, #5, #0x1234", "tbnz w3, #5, #0"),
        ("adrp x0, #0x411000", "adrp x0, #0"),
        ("ldr x0, #0x4000", "ldr x0, #0"),
        ("ldr x0, [x1, #8]", "ldr x0, [x1, #8]"),
        ("bic v0.8h, #0xff", "bic v0.8h, #0xff"),
        ("add x0, x1, #4", "add x0, x1, #4"),
    ],
)
def test_addresses_of_the_program_are_left_out(text: str, wanted: str) -> None:
    assert without_target(instruction(text)).text == wanted


def test_a_word_that_is_no_instruction_is_a_nop_in_its_place(tmp_path: Path) -> None:
    code = machine_code(tmp_path, "add x0, x0, #1\n.inst 0xffffffff\nsdot v0.4s, v1.16b, v2.4b[3]")
    texts = [one.text for one in disassemble(code)]
    assert texts == ["add x0, x0, #1", "nop", "sdot v0.4s, v1.16b, v2.4b[3]"]
    assert [one.address for one in disassemble(code)] == [0, 4, 8]
