"""C programs for the virtual board, and machine code from assembly."""

from __future__ import annotations

import io
from pathlib import Path

from elftools.elf.elffile import ELFFile

from mfn_compile.arm.firmware.code import Instruction
from tests.arm.firmware import stub

# A branch behind a marker ends its block, which is not counted (BEGIN) or counts whole (END).
_MARK = '__asm__ volatile("hint #%d\\n b 0f\\n 0:" ::: "memory");'
BEGIN, END = _MARK % 112, _MARK % 113
MARCH = "-march=armv8.2-a+dotprod+fp16"


def build(folder: Path, body: str, *options: str, outside: str = "") -> Path:
    """A static AArch64 program of the body of `main`."""
    source, program = folder / "program.c", folder / "program"
    head = "#include <stdint.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
    source.write_text(
        f"{head}{outside}\nint main(int argc, char **argv) {{\n{body}\nreturn 0;\n}}\n"
    )
    stub.succeed(stub.cross(), "-O2", "-static", *options, source, "-o", program)
    return program


def machine_code(folder: Path, text: str) -> bytes:
    """The bytes of assembly text."""
    content = stub.compile_c(folder, "code", text + "\n", MARCH, suffix="s")
    return bytes(ELFFile(io.BytesIO(content)).get_section_by_name(".text").data())


def instruction(text: str) -> Instruction:
    """One line of assembly."""
    mnemonic, _, operands = text.strip().partition(" ")
    return Instruction(0, mnemonic, operands.strip())
