"""Finds a compiler for AArch64, and links the shared library."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.errors import DeviceError

AARCH64 = ("aarch64", "arm64")
CROSS = "aarch64-linux-gnu-gcc"
LINK_SECONDS = 300.0  # zig builds its C library at the first use
INSTALL = "sudo apt install qemu-user gcc-aarch64-linux-gnu"
EXPORTS = "{ global: mfn_*; local: *; };\n"


@dataclass(frozen=True)
class Compiler:
    """A C compiler whose programs are for AArch64 Linux."""

    command: tuple[str, ...]
    kind: Literal["native", "cross", "zig"]

    @property
    def static(self) -> tuple[str, ...]:
        """Command that makes a program which runs without files beside it."""
        if self.kind == "zig":  # of the C libraries that it brings, musl links statically
            return (*self.command, "-target", "aarch64-linux-musl", "-static")
        return (*self.command, "-static")

    @property
    def shared(self) -> tuple[str, ...]:
        """Command that makes a shared library."""
        if self.kind == "zig":
            return (*self.command, "-target", "aarch64-linux-gnu")
        return self.command


def native_aarch64() -> bool:
    """Whether this machine runs AArch64 programs by itself."""
    return sys.platform.startswith("linux") and platform.machine().lower() in AARCH64


def find_compiler() -> Compiler | None:
    """The first of: cc on AArch64, aarch64-linux-gnu-gcc, zig from PyPI; None without any."""
    native = shutil.which("cc") if native_aarch64() else None
    if native:
        return Compiler((native,), "native")
    cross = shutil.which(CROSS)
    if cross:
        return Compiler((cross,), "cross")
    if importlib.util.find_spec("ziglang") is not None:
        return Compiler((sys.executable, "-m", "ziglang", "cc"), "zig")
    return None


def link_shared(archive: Path, out: Path, compiler: Compiler | None = None) -> Path | None:
    """Make the shared library of a static one: everything in it, exporting mfn_* only.

    No C library is named as needed: memcpy and memset come from the program that loads it, so
    that one file serves glibc, musl and Android.

    Args:
        archive: lib/libmfn.a.
        out: the file to write; its name becomes the soname.
        compiler: what links; looked for when not given.

    Returns:
        `out`, or None when there is no compiler.

    Raises:
        DeviceError: the linker failed.
    """
    compiler = compiler or find_compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="mfn-link-") as folder:
        script = Path(folder, "exports.map")
        script.write_text(EXPORTS)
        options = [
            *("-shared", "-nostdlib", f"-Wl,-soname,{out.name}"),
            f"-Wl,--version-script={script}",
            *("-Wl,-Bsymbolic", "-Wl,-z,noexecstack", "-Wl,--build-id=none"),
            *("-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive"),
            *("-o", str(out)),
        ]
        if compiler.kind != "zig":  # which does not know the option, and behaves so anyway
            options.insert(0, "-Wl,-z,text")
        done = run_tool([*compiler.shared, *options], timeout=LINK_SECONDS)
    if done.code != 0:
        raise DeviceError(
            "The shared library cannot be linked",
            where=" ".join(compiler.command),
            why=done.first_lines() or f"the linker ended with {done.code}",
            hint=f"Check the compiler, or install another: {INSTALL}",
        )
    return out
