"""Machine code of relocatable AArch64 objects: functions, instructions, and who jumps where."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import capstone
from elftools.common.exceptions import ELFError
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from mfn_compile.arm.firmware.elf import EXECUTE, GLOBAL_BINDINGS, opened, symbols_of
from mfn_compile.errors import InternalCheckError

WORD = 4
JUMPS = frozenset({279, 280, 282, 283})  # TSTBR14, CONDBR19, JUMP26, CALL26
ADDRESSES = frozenset({274, 275, 276})  # ADR_PREL_LO21, ADR_PREL_PG_HI21 and its _NC
CONDITIONAL = ("b.", "cbz", "cbnz", "tbz", "tbnz", "bc.")
# Capstone 6 calls the architecture by its name; 5 has the old one only.
ARCHITECTURE = getattr(capstone, "CS_ARCH_AARCH64", None) or capstone.CS_ARCH_ARM64


@dataclass(frozen=True)
class Instruction:
    """One instruction; `address` counts from the start of its section."""

    address: int
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        """As a disassembler prints it."""
        return f"{self.mnemonic} {self.operands}".strip()

    @property
    def conditional(self) -> bool:
        """Whether it branches, or goes on with the next instruction."""
        return self.mnemonic.startswith(CONDITIONAL)

    @property
    def branches(self) -> bool:
        """Whether it jumps to an address that it names, and does not come back."""
        return self.mnemonic == "b" or self.conditional


@dataclass(frozen=True)
class Jump:
    """Where a call or a branch goes: a function (by key, or by name from outside), or a place."""

    function: str | None
    outside: str | None = None
    address: int | None = None  # inside of the same function


@dataclass(frozen=True)
class Function:
    """One function of one object.

    Attributes:
        key: the symbol, with the object before it where the symbol is local.
        instructions: in the order of their addresses.
        jumps: every bl and every branch, by the address of the instruction.
        taken: keys of functions whose address it computes.
    """

    key: str
    symbol: str
    exported: bool
    start: int
    end: int
    instructions: tuple[Instruction, ...]
    jumps: Mapping[int, Jump]
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Symbol:
    key: str
    name: str
    exported: bool
    size: int


@dataclass
class _Section:
    content: bytes
    functions: dict[int, list[_Symbol]] = field(default_factory=dict)  # by address, with aliases
    data: list[tuple[int, bool]] = field(default_factory=list)  # where $d ($x) regions begin
    links: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    addresses: dict[int, tuple[int, int]] = field(default_factory=dict)

    def end(self, start: int, size: int) -> int:
        """Where a function ends; without a size, where the next one begins."""
        following = [other for other in self.functions if other > start]
        return start + size if size else min([*following, len(self.content)])


def read_functions(objects: Mapping[str, bytes]) -> dict[str, Function]:
    """Every function of some objects by its key.

    Raises:
        InternalCheckError: code that cannot be disassembled, or a jump to a place that is no
            function.
    """
    found: dict[str, Function] = {}
    for name, content in objects.items():
        with opened(name, content) as elf:
            sections = _sections(name, elf)
        for section in sections.values():
            for start, symbols in sorted(section.functions.items()):
                for symbol in symbols:
                    if symbol.key in found:
                        raise unclear(symbol.key, "two functions have this name")
                    found[symbol.key] = _function(symbol, sections, section, start)
    return _linked(found)


def _linked(found: dict[str, Function]) -> dict[str, Function]:
    """Jumps to names from outside become jumps to the functions of other objects."""
    linked = {}
    for key, function in found.items():
        jumps = {
            address: Jump(jump.outside) if jump.outside in found else jump
            for address, jump in function.jumps.items()
        }
        linked[key] = replace(function, jumps=jumps)
    return linked


def _sections(name: str, elf: Any) -> dict[int, _Section]:
    sections = {
        index: _Section(bytes(section.data()))
        for index, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & EXECUTE and section["sh_type"] == "SHT_PROGBITS"
    }
    for symbol in symbols_of(elf):
        home = sections.get(symbol["st_shndx"])
        if home is None:
            continue
        value, size = int(symbol["st_value"]), int(symbol["st_size"])
        if symbol.name.startswith(("$d", "$x")):
            home.data.append((value, symbol.name.startswith("$d")))
        elif symbol["st_info"]["type"] == "STT_FUNC":
            exported = symbol["st_info"]["bind"] in GLOBAL_BINDINGS
            key = symbol.name if exported else f"{name}:{symbol.name}"
            known = home.functions.setdefault(value, [])
            known.append(_Symbol(key, symbol.name, exported, size))
    for section in sections.values():
        section.data.sort()
    _read_links(elf, sections)
    return sections


def _read_links(elf: Any, sections: dict[int, _Section]) -> None:
    """Relocations of calls and branches: (symbol, section index or -1, address there); and of
    addresses: the last two.
    """
    for relocations in elf.iter_sections():
        if not isinstance(relocations, RelocationSection):
            continue
        section = sections.get(relocations["sh_info"])
        if section is None:
            continue
        table = elf.get_section(relocations["sh_link"])
        if not isinstance(table, SymbolTableSection):
            raise ELFError("relocations without symbols")
        for relocation in relocations.iter_relocations():
            kind, offset = relocation["r_info_type"], int(relocation["r_offset"])
            if kind not in JUMPS | ADDRESSES:
                continue
            symbol = table.get_symbol(relocation["r_info_sym"])
            index = symbol["st_shndx"]
            place = int(symbol["st_value"]) + int(relocation["r_addend"])
            home = index if isinstance(index, int) else -1
            if kind in JUMPS:
                section.links[offset] = (symbol.name, home, place)
            else:
                section.addresses[offset] = (home, place)


def _function(
    symbol: _Symbol, sections: dict[int, _Section], section: _Section, start: int
) -> Function:
    end = section.end(start, symbol.size)
    if not start < end <= len(section.content) or start % WORD:
        raise unclear(symbol.key, "it is not inside of its section")
    instructions = _disassemble(symbol.key, section, start, end)
    jumps = {
        instruction.address: _target(symbol.key, (start, end), sections, section, instruction)
        for instruction in instructions
        if instruction.mnemonic == "bl" or instruction.branches
    }
    taken = _taken(sections, section, instructions)
    return Function(
        symbol.key, symbol.name, symbol.exported, start, end, instructions, jumps, taken
    )


def _taken(
    sections: dict[int, _Section], section: _Section, instructions: tuple[Instruction, ...]
) -> frozenset[str]:
    places = [section.addresses.get(instruction.address) for instruction in instructions]
    homes = [(sections[place[0]], place[1]) for place in places if place and place[0] in sections]
    return frozenset(home.functions[at][0].key for home, at in homes if at in home.functions)


def _disassemble(key: str, section: _Section, start: int, end: int) -> tuple[Instruction, ...]:
    engine = capstone.Cs(ARCHITECTURE, capstone.CS_MODE_ARM)
    found: list[Instruction] = []
    position = start
    while position < end:
        if _is_data(section, position):
            position += WORD
            continue
        stop = min([at for at, data in section.data if data and at > position] + [end])
        code = section.content[position:stop]
        for address, _, mnemonic, operands in engine.disasm_lite(code, position):
            found.append(Instruction(address, mnemonic, operands))
            position = address + WORD
        if position < stop:
            word = section.content[position : position + WORD][::-1].hex()
            raise unclear(key, f"the word 0x{word} at +0x{position - start:x} is no instruction")
    return tuple(found)


def _is_data(section: _Section, position: int) -> bool:
    before = bisect.bisect_right(section.data, (position, True)) - 1
    return before >= 0 and section.data[before][1]


def _target(
    key: str,
    bounds: tuple[int, int],
    sections: dict[int, _Section],
    section: _Section,
    instruction: Instruction,
) -> Jump:
    home: _Section | None = section
    link = section.links.get(instruction.address)
    if link is None:
        place = int(instruction.operands.rsplit("#", 1)[1], 0)
    else:
        symbol, index, place = link
        if index < 0:
            return Jump(None, outside=symbol)
        home = sections.get(index)
    # A call of the function's own start is recursion, a branch to it is a loop.
    inside = home is section and bounds[0] <= place < bounds[1]
    if inside and instruction.mnemonic != "bl":
        return Jump(None, address=place)
    if home is None or place not in home.functions:
        where = f"the instruction {instruction.text} at +0x{instruction.address - bounds[0]:x}"
        raise unclear(key, f"{where} goes to no function")
    return Jump(home.functions[place][0].key)


def unclear(function: str, why: str) -> InternalCheckError:
    """Machine code that cannot be understood."""
    return InternalCheckError(
        "The machine code cannot be analysed",
        where=function,
        why=why,
        hint="Report it with the command that you ran",
    )
