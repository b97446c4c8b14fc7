"""A static library: a GNU ar archive with its symbol index, the same bytes for the same objects."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from mfn_compile.arm.firmware.elf import read_object
from mfn_compile.errors import InternalCheckError

MAGIC = b"!<arch>\n"
HEADER = 60
SHORT_NAME = 15  # a longer name goes into the member "//"
LARGEST = 2**32 - 1  # the index holds 32-bit offsets


def make_archive(objects: Mapping[str, bytes]) -> bytes:
    """The archive of `objects`, members in the order given.

    Timestamps, owners and groups are 0, modes are 644, as `ar` writes them with D. The index is
    the member "/", so that a linker takes the archive without ranlib.

    Raises:
        InternalCheckError: no objects, a member name that cannot be one, a symbol that two objects
            define, or more than 4 GiB.
    """
    if not objects:
        raise _wrong("it would be empty")
    symbols = _symbols(objects)
    long_names, fields = _names(list(objects))
    index_size = 4 + 4 * len(symbols) + sum(len(symbol) + 1 for symbol, _ in symbols)
    position = len(MAGIC) + HEADER + _even(index_size)
    position += HEADER + _even(len(long_names)) if long_names else 0
    offsets = {}
    for name, content in objects.items():
        offsets[name] = position
        position += HEADER + _even(len(content))
    if position > LARGEST:
        raise _wrong("it is larger than 4 GiB")
    index = struct.pack(f">{1 + len(symbols)}I", len(symbols), *(offsets[m] for _, m in symbols))
    index += b"".join(symbol.encode() + b"\0" for symbol, _ in symbols)
    parts = [MAGIC, _member("/", index, mode="0")]
    if long_names:
        parts.append(_member("//", long_names, mode=None))
    parts += [_member(fields[name], content) for name, content in objects.items()]
    return b"".join(parts)


def _symbols(objects: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Every exported symbol with the member that defines it, in the order of the members."""
    home: dict[str, str] = {}
    for name, content in objects.items():
        for symbol in read_object(name, content).exported:
            if symbol in home:
                raise _wrong(f"{symbol} is in {home[symbol]} and in {name}")
            home[symbol] = name
    return list(home.items())


def _names(names: list[str]) -> tuple[bytes, dict[str, str]]:
    """The table of long names, and what a member's header says for each name."""
    table, fields = b"", {}
    for name in names:
        if not name.isascii() or not name.isprintable() or "/" in name or not name:
            raise _wrong(f"{name!r} cannot be a member's name")
        if len(name) <= SHORT_NAME:
            fields[name] = f"{name}/"
        else:
            fields[name] = f"/{len(table)}"
            table += f"{name}/\n".encode()
    return table, fields


def _member(field: str, content: bytes, mode: str | None = "644") -> bytes:
    # The table of long names has blank fields in GNU archives.
    numbers = ("", "", "", "") if mode is None else ("0", "0", "0", mode)
    date, owner, group, bits = numbers
    header = f"{field:<16}{date:<12}{owner:<6}{group:<6}{bits:<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def _even(size: int) -> int:
    return size + size % 2


def _wrong(why: str) -> InternalCheckError:
    return InternalCheckError(
        "The static library cannot be written",
        where="lib/libmfn.a",
        why=why,
        hint="Report it with the command that you ran",
    )
