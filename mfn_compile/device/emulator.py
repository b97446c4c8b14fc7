"""QEMU's user mode with our plugin: found, checked, and the plugin built where it is not yet."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from filelock import FileLock

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.arm.firmware.proof import find_emulator
from mfn_compile.errors import DeviceError
from mfn_compile.store import default_root

SOURCE = Path(__file__).parent / "plugin" / "blocks.c"
HOST_COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC")
BUILD_SECONDS = 120.0
INSTALL_QEMU = "sudo apt install qemu-user"
INSTALL_COMPILER = "sudo apt install gcc libc6-dev"
NEWEST = (9, 0)  # the first QEMU without version 1 of the plugin interface
_VERSION = re.compile(r"version (\d+)\.(\d+)")


def folder() -> Path:
    """Where the virtual board keeps what it built and computed."""
    return default_root().absolute() / "virtual-board"


def require_emulator() -> str:
    """Path of a QEMU that can load the plugin.

    Raises:
        DeviceError: there is none, or it is linked statically, too new, or without plugins.
    """
    found = find_emulator()
    if found is None:
        raise DeviceError(
            "The virtual board needs QEMU's user mode for AArch64",
            why="there is no qemu-aarch64 on PATH",
            hint=f"Install it: {INSTALL_QEMU}",
        )
    _check(found)
    return found


@cache
def _check(emulator: str) -> None:
    if _is_static(emulator):
        raise _unable(emulator, "it is linked statically, and such a program loads no plugins")
    if "-plugin" not in run_tool([emulator, "-help"], timeout=60).stdout:
        raise _unable(emulator, "it was built without plugins")
    match = _VERSION.search(run_tool([emulator, "--version"], timeout=60).stdout)
    if match and (int(match[1]), int(match[2])) >= NEWEST:
        raise _unable(emulator, f"its {match[0]} is too new: 6.0 to 8.2 have the plugin interface")


def _is_static(program: str) -> bool:
    """Whether an ELF program loads no other files; False for what is no ELF (a wrapper)."""
    try:
        with open(program, "rb") as handle:
            kinds = {segment["p_type"] for segment in ELFFile(handle).iter_segments()}
    except (ELFError, OSError):
        return False
    return "PT_INTERP" not in kinds


def _unable(emulator: str, why: str) -> DeviceError:
    return DeviceError(
        "This QEMU cannot count blocks",
        where=emulator,
        why=why,
        hint=f"Install the dynamic one of your distribution: {INSTALL_QEMU}",
    )


def require_host_compiler() -> str:
    """Path of a C compiler for this machine, to build the plugin with.

    Raises:
        DeviceError: there is none.
    """
    compiler = next((path for name in HOST_COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise DeviceError(
            "The virtual board builds a small plugin for QEMU and needs a C compiler",
            why=f"none of {', '.join(HOST_COMPILERS)} is on PATH",
            hint=f"Install one: {INSTALL_COMPILER}",
        )
    return compiler


def build_plugin() -> Path:
    """The plugin for this machine, built at the first call with its source and kept.

    Raises:
        DeviceError: no C compiler, one that failed, or a folder that cannot be written.
    """
    compiler = require_host_compiler()
    key = hashlib.sha256(" ".join((compiler, *FLAGS)).encode() + SOURCE.read_bytes()).hexdigest()
    place = folder() / f"blocks-{key[:16]}.so"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not place.is_file():
                _compile(compiler, place)
    except OSError as error:
        raise DeviceError(
            "The plugin of the virtual board cannot be written",
            where=str(error.filename or place),
            why=error.strerror or str(error),
            hint="Free some space, or name another folder with MFN_CACHE_DIR",
        ) from error
    return place


def _compile(compiler: str, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".plugin-") as aside:
        made = Path(aside, place.name)
        done = run_tool([compiler, *FLAGS, str(SOURCE), "-o", str(made)], timeout=BUILD_SECONDS)
        if done.code != 0:
            raise DeviceError(
                "The plugin of the virtual board cannot be compiled",
                where=compiler,
                why=done.first_lines() or f"the compiler ended with {done.code}",
                hint=f"Check the compiler, or install another: {INSTALL_COMPILER}",
            )
        os.replace(made, place)
