"""What a relocatable AArch64 object holds, and the check that firmware can take it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from pydantic import Field

from mfn_compile.errors import InternalCheckError
from mfn_compile.frozen import Frozen

PROVIDED = frozenset({"memcpy", "memset"})  # by every C library, and by bare-metal start-up code
PREFIX = "mfn_"
ALLOC, WRITE, EXECUTE, TLS = 0x2, 0x1, 0x4, 0x400
GLOBAL_BINDINGS = ("STB_GLOBAL", "STB_WEAK")

# Relocations that need no work when the code is loaded at another address (ELF for the Arm 64-bit
# architecture: relative to the place, low bits of a page, or through the global offset table).
RELATIVE: dict[int, str] = {
    0: "NONE",
    256: "NONE",
    260: "PREL64",
    261: "PREL32",
    262: "PREL16",
    273: "LD_PREL_LO19",
    274: "ADR_PREL_LO21",
    275: "ADR_PREL_PG_HI21",
    276: "ADR_PREL_PG_HI21_NC",
    277: "ADD_ABS_LO12_NC",
    278: "LDST8_ABS_LO12_NC",
    279: "TSTBR14",
    280: "CONDBR19",
    282: "JUMP26",
    283: "CALL26",
    284: "LDST16_ABS_LO12_NC",
    285: "LDST32_ABS_LO12_NC",
    286: "LDST64_ABS_LO12_NC",
    **{287 + i: f"MOVW_PREL_{name}" for i, name in enumerate(("G0", "G0_NC", "G1", "G1_NC"))},
    **{291 + i: f"MOVW_PREL_{name}" for i, name in enumerate(("G2", "G2_NC", "G3"))},
    299: "LDST128_ABS_LO12_NC",
    309: "GOT_LD_PREL19",
    311: "ADR_GOT_PAGE",
    312: "LD64_GOT_LO12_NC",
    313: "LD64_GOTPAGE_LO15",
    314: "PLT32",
}
ABSOLUTE = {257: "ABS64", 258: "ABS32", 259: "ABS16"}


class ObjectFacts(Frozen):
    """Sizes and symbols of one object file, or of several together; sizes in bytes."""

    name: str
    text: int = Field(description="machine code")
    rodata: int = Field(description="constants: weights and tables")
    data: int = Field(description="initialized data that can be written; 0 in firmware objects")
    bss: int = Field(description="zeroed data, COMMON symbols counted; 0 in firmware objects")
    other: int = Field(description="unwind tables and notes that are loaded")
    exported: tuple[str, ...] = Field(description="in the order of the symbol table")
    undefined: tuple[str, ...]


@contextmanager
def opened(name: str, content: bytes) -> Iterator[Any]:
    """The object as pyelftools shows it, while it is looked at.

    Raises:
        InternalCheckError: it is no relocatable little-endian AArch64 object, or a damaged one.
    """
    try:
        elf = ELFFile(io.BytesIO(content))
        kind = (elf.elfclass, elf.little_endian, elf["e_machine"], elf["e_type"])
        if kind != (64, True, "EM_AARCH64", "ET_REL"):
            raise _wrong(name, "it is no relocatable little-endian AArch64 object")
        yield elf
    except (ELFError, OverflowError) as error:  # the second: an offset that no file has
        raise _wrong(name, f"it cannot be read as ELF: {error}") from error


def symbols_of(elf: Any) -> Iterator[Any]:
    """Every symbol of an object, section and file symbols too."""
    table = elf.get_section_by_name(".symtab")
    return iter(table.iter_symbols() if isinstance(table, SymbolTableSection) else ())


def read_object(name: str, content: bytes) -> ObjectFacts:
    """Sizes and symbols of an object.

    Raises:
        InternalCheckError: it is no relocatable AArch64 object.
    """
    with opened(name, content) as elf:
        return _read(name, elf)


def section_sizes(name: str, content: bytes) -> dict[str, int]:
    """Bytes of every loaded section by its name; those of one name are added up.

    Raises:
        InternalCheckError: it is no relocatable AArch64 object.
    """
    sizes: dict[str, int] = {}
    with opened(name, content) as elf:
        for section in elf.iter_sections():
            if section["sh_flags"] & ALLOC:
                title = str(section.name)
                sizes[title] = sizes.get(title, 0) + int(section["sh_size"])
    return sizes


def _read(name: str, elf: Any) -> ObjectFacts:
    sizes = dict.fromkeys(("text", "rodata", "data", "bss", "other"), 0)
    for section in elf.iter_sections():
        if section["sh_flags"] & ALLOC:
            sizes[_kind(section)] += int(section["sh_size"])
    exported: dict[str, None] = {}
    undefined: set[str] = set()
    for symbol in symbols_of(elf):
        if not symbol.name or symbol["st_info"]["bind"] not in GLOBAL_BINDINGS:
            continue
        if symbol["st_shndx"] == "SHN_UNDEF":
            undefined.add(symbol.name)
            continue
        if symbol["st_shndx"] == "SHN_COMMON":
            sizes["bss"] += int(symbol["st_size"])
        exported[symbol.name] = None
    return ObjectFacts(
        name=name, exported=tuple(exported), undefined=tuple(sorted(undefined)), **sizes
    )


def _kind(section: Any) -> str:
    name, flags = str(section.name), int(section["sh_flags"])
    if flags & EXECUTE:
        return "text"
    if flags & WRITE and not _relocated_constants(name):
        return "bss" if section["sh_type"] == "SHT_NOBITS" else "data"
    constants = name.startswith((".rodata", ".srodata", ".lrodata", ".data.rel.ro"))
    return "rodata" if constants else "other"


def _relocated_constants(name: str) -> bool:
    """Constants that hold addresses: written once by the loader, then read only."""
    return name == ".data.rel.ro" or name.startswith(".data.rel.ro.")


def check_object(
    name: str, content: bytes, *, allowed: frozenset[str] = PROVIDED, prefix: str = PREFIX
) -> ObjectFacts:
    """Prove that an object is reentrant, position independent and needs nothing from outside.

    Args:
        name: the object's name, for messages.
        content: the object.
        allowed: symbols that it may leave undefined.
        prefix: what every symbol that others see must begin with.

    Returns:
        The object's sizes and symbols.

    Raises:
        InternalCheckError: names everything that is wrong.
    """
    with opened(name, content) as elf:
        facts = _read(name, elf)
        found = [*_writable(elf), *_not_relative(elf)]
    missing = sorted(set(facts.undefined) - allowed)
    foreign = [symbol for symbol in facts.exported if not symbol.startswith(prefix)]
    problems = [f"it needs {', '.join(missing)} from outside"] if missing else []
    if foreign:
        problems.append(f"it exports {', '.join(foreign)}, without the prefix {prefix}")
    problems += found
    if problems:
        raise _wrong(name, "; ".join(problems))
    return facts


def check_objects(objects: Mapping[str, bytes]) -> tuple[ObjectFacts, ...]:
    """`check_object` for objects that may use each other's symbols.

    Raises:
        InternalCheckError: names the object and everything that is wrong with it.
    """
    exported = {s for name, content in objects.items() for s in read_object(name, content).exported}
    allowed = PROVIDED | exported
    return tuple(check_object(name, content, allowed=allowed) for name, content in objects.items())


def _writable(elf: Any) -> list[str]:
    problems = []
    for section in elf.iter_sections():
        flags, size = int(section["sh_flags"]), int(section["sh_size"])
        if not flags & ALLOC or not size:
            continue
        if flags & TLS:
            problems.append(f"{section.name} holds {size:,} bytes for each thread")
        elif flags & WRITE and flags & EXECUTE:
            problems.append(f"{section.name} is code that can be written")
        elif flags & WRITE and not _relocated_constants(str(section.name)):
            problems.append(f"{section.name} holds {size:,} bytes that can be written")
    for symbol in symbols_of(elf):
        if symbol["st_shndx"] == "SHN_COMMON":
            problems.append(f"{symbol.name} is a COMMON symbol, which can be written")
    return problems


def _not_relative(elf: Any) -> list[str]:
    """Relocations in read-only sections that depend on where the code is loaded."""
    problems = []
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        place = elf.get_section(section["sh_info"])
        flags = int(place["sh_flags"])
        if not flags & ALLOC or flags & WRITE:
            continue
        counts: dict[int, int] = {}
        for relocation in section.iter_relocations():
            kind = int(relocation["r_info_type"])
            if kind not in RELATIVE:
                counts[kind] = counts.get(kind, 0) + 1
        for kind, count in sorted(counts.items()):
            title = f"R_AARCH64_{ABSOLUTE[kind]}" if kind in ABSOLUTE else f"of type {kind}"
            problems.append(
                f"{place.name} has {count} relocations {title}, not position independent"
            )
    return problems


def _wrong(name: str, why: str) -> InternalCheckError:
    return InternalCheckError(
        "A compiled object cannot go into firmware",
        where=name,
        why=why,
        hint="Report it with the command that you ran",
    )
