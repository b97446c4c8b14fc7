"""Machine code of blocks as text: what the pipeline models read."""

from __future__ import annotations

import re

import capstone

from mfn_compile.arm.firmware.code import ARCHITECTURE, Instruction
from mfn_compile.device.blocks import WORD

NOTHING = "nop"  # stands for words that no disassembler knows
_BRANCH = re.compile(r"^(b|bl|b\..*|bc\..*|cbn?z|tbn?z)$")
_TO_PLACE = re.compile(r"#-?(0x)?[0-9a-f]+$")
_WRITTEN_BACK = re.compile(
    r"^(?P<values>.*)\[(?P<base>x\d+|sp)(?:, #(?P<before>-?\w+)\]!|\], #?(?P<after>-?\w+))$"
)


def disassemble(code: bytes) -> tuple[Instruction, ...]:
    """One instruction a word, addresses from 0; a word that is none becomes a nop."""
    engine = capstone.Cs(ARCHITECTURE, capstone.CS_MODE_ARM)
    found: list[Instruction] = []
    while len(found) * WORD < len(code):
        position = len(found) * WORD
        for address, _, mnemonic, operands in engine.disasm_lite(code[position:], position):
            found.append(Instruction(address, mnemonic, operands))
        if len(found) * WORD < len(code):
            found.append(Instruction(len(found) * WORD, NOTHING, ""))
    return tuple(found)


def without_target(instruction: Instruction) -> Instruction:
    """The same with 0 for an address in the program: where it goes does not change its time.

    Assemblers refuse distances that the disassembler prints, since it knows only a part of the
    program.
    """
    mnemonic, operands = instruction.mnemonic, instruction.operands
    literal = mnemonic.startswith(("ld", "prfm")) and "[" not in operands
    if not (literal or mnemonic in ("adr", "adrp") or _BRANCH.match(mnemonic)):
        return instruction
    return Instruction(instruction.address, mnemonic, _TO_PLACE.sub("#0", operands))


def without_write_back(instruction: Instruction) -> tuple[Instruction, ...]:
    """An access that changes its address register as an access and an addition, in their order.

    llvm-mca makes the changed address wait for the loaded value, which no core does.
    """
    match = _WRITTEN_BACK.match(instruction.operands)
    if match is None or not instruction.mnemonic.startswith(("ld", "st")):
        return (instruction,)
    step, base = match["before"] or match["after"], match["base"]
    access = Instruction(instruction.address, instruction.mnemonic, f"{match['values']}[{base}]")
    if step.startswith("x"):
        change = ("add", step)
    elif step.startswith("-"):
        change = ("sub", f"#{step[1:]}")
    else:
        change = ("add", f"#{step}")
    added = Instruction(instruction.address, change[0], f"{base}, {base}, {change[1]}")
    return (added, access) if match["before"] else (access, added)
