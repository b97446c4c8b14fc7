"""Functions of a linked program by their addresses."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from mfn_compile.arm.firmware.elf import symbols_of
from mfn_compile.errors import DeviceError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Symbol:
    """A function; `size` in bytes, 0 where it is not known."""

    name: str
    address: int
    size: int


class Symbols:
    """The functions of one program."""

    def __init__(self, functions: list[Symbol]) -> None:
        # Names that share an address: the last in the order of the alphabet stays.
        by_address = {one.address: one for one in sorted(functions, key=lambda s: s.name)}
        self._sorted = [by_address[address] for address in sorted(by_address)]
        self._starts = [one.address for one in self._sorted]

    def at(self, address: int) -> Symbol:
        """The function that an address lies in."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0:
            found = self._sorted[index]
            if not found.size or address < found.address + found.size:
                return found
        return Symbol(UNKNOWN, 0, 0)


def read_symbols(program: Path) -> Symbols:
    """The functions in a program's symbol table.

    Raises:
        DeviceError: it is no ELF file, or a damaged one.
    """
    try:
        with program.open("rb") as handle:
            functions = [
                Symbol(symbol.name, int(symbol["st_value"]), int(symbol["st_size"]))
                for symbol in symbols_of(ELFFile(handle))
                if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF"
            ]
    except (ELFError, OSError) as error:
        raise DeviceError(
            "The program's symbols cannot be read",
            where=str(program),
            why=str(error),
            hint="Build it again",
        ) from error
    return Symbols(functions)
