"""AArch64 programs on the virtual board: built around a library, run, and counted."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.arm.firmware.process import Finished, run_tool
from mfn_compile.device.blocks import Counts, read_counts
from mfn_compile.device.board import Core
from mfn_compile.device.emulator import build_plugin, require_emulator
from mfn_compile.device.tools import require_cross_compiler
from mfn_compile.errors import BadInputError, DeviceError

SOURCE = Path(__file__).parent / "plugin" / "inference.c"
BUILD_SECONDS = 300.0
RUN_SECONDS = 300.0  # an inference takes 2 s, of the largest networks 10 s
LIBRARY, HEADER, IMAGE = "lib/libmfn.a", "include/mfn.h", "golden/000.rgb"
AARCH64, ELF = 183, b"\x7fELF"  # EM_AARCH64


@dataclass(frozen=True)
class Bundle:
    """What of a firmware bundle is needed to run it."""

    library: Path
    header: Path
    image: Path

    def has(self, variant: Variant) -> bool:
        """Whether the library has the variant."""
        line = f"#define MFN_HAS_{variant.upper()} 1"
        return line in self.header.read_text(encoding="utf-8").splitlines()


def open_bundle(place: Path) -> Bundle:
    """The bundle in a folder, or the one that a libmfn.a lies in.

    Raises:
        BadInputError: a file is missing.
    """
    root = place if place.is_dir() else place.absolute().parent.parent
    library = root / LIBRARY if place.is_dir() else place
    bundle = Bundle(library, root / HEADER, root / IMAGE)
    for path in (bundle.library, bundle.header, bundle.image):
        if not path.is_file():
            raise BadInputError(
                "This is no bundle with a library for ARM",
                where=str(place),
                why=f"{path} is missing",
                hint="Give the folder that `mfn-compile --target arm64` wrote",
            )
    return bundle


def build_inference(
    bundle: Bundle, variant: Variant, folder: Path, *, in_tasks: bool = False
) -> Path:
    """Link a program that embeds one image twice, the second time between the markers.

    Args:
        in_tasks: with mfn_embed_parallel, its tasks one after another.

    Raises:
        BadInputError: the library has no such variant.
        DeviceError: no compiler for AArch64, or it failed.
    """
    if not bundle.has(variant):
        raise BadInputError(
            f"The library has no variant {variant}",
            where=str(bundle.library),
            hint="Choose a device that runs the variant that it has, or compile for a target with "
            f"[[code.variants]] {variant}, like arm64",
        )
    _check_image(bundle)
    _check_library(bundle.library)
    tasks = ("-DMFN_IN_TASKS",) if in_tasks else ()
    options = (f"-DMFN_VARIANT={variant}", f"-I{bundle.header.parent}", *tasks)
    return link(SOURCE, (bundle.library,), folder / "inference", options)


def link(source: Path, code: Sequence[Path], program: Path, options: Sequence[str]) -> Path:
    """Compile a C program around objects or libraries for AArch64, without shared libraries.

    Raises:
        DeviceError: no compiler for AArch64, or it failed.
    """
    compiler = require_cross_compiler()
    files = (str(source), *map(str, code), "-o", str(program))
    command = [*compiler.static, "-std=c99", "-O2", *options, *files]
    done = run_tool(command, timeout=BUILD_SECONDS)
    if done.code != 0:
        raise DeviceError(
            "The library cannot be linked for the virtual board",
            where=", ".join(map(str, code)),
            why=done.first_lines() or f"the compiler ended with {done.code}",
            hint="Check that it is a library for AArch64, and that the compiler works",
        )
    return program


def _check_image(bundle: Bundle) -> None:
    """That the image is whole: a program that misses a part of it would only say that it failed."""
    found = re.search(r"^#define MFN_INPUT_HEIGHT (\d+)$", _header(bundle), re.MULTILINE)
    wide = re.search(r"^#define MFN_INPUT_WIDTH (\d+)$", _header(bundle), re.MULTILINE)
    if found is None or wide is None:
        return
    needed, there = int(found[1]) * int(wide[1]) * 3, bundle.image.stat().st_size
    if there < needed:
        raise BadInputError(
            "A golden vector of the bundle is damaged",
            where=str(bundle.image),
            why=f"it has {there} of {needed} bytes",
            hint="Check the bundle: mfn-compile verify BUNDLE",
        )


def _check_library(library: Path) -> None:
    """That it is a static library for AArch64; a linker would say so in many words."""
    content = library.read_bytes()
    start = content.find(ELF)
    why = ""
    if not content.startswith(b"!<arch>\n") or start < 0:
        why = "it is no static library"
    elif content[start + 18 : start + 20] != struct.pack("<H", AARCH64):
        why = "it is for another architecture"
    if why:
        raise BadInputError(
            "The library cannot be linked for the virtual board",
            where=str(library),
            why=why,
            hint="Give the folder that `mfn-compile --target arm64` wrote",
        )


def _header(bundle: Bundle) -> str:
    return bundle.header.read_text(encoding="utf-8")


def run_counted(
    command: Sequence[str | Path],
    core: Core,
    *,
    options: Sequence[str] = (),
    seconds: float = RUN_SECONDS,
) -> Counts:
    """Run an AArch64 program and count what it does between the markers of blocks.c.

    Args:
        command: the program and its arguments; it runs in a temporary folder, so their paths must
            be absolute.
        core: whose CPU the program shall see, and whose caches are modelled.
        options: more options of QEMU, such as -L with a root folder.
        seconds: after which it is stopped.

    Raises:
        DeviceError: QEMU or the plugin is missing; or the program is for another architecture,
            crashed, failed, did not end in time, or never reached the markers.
    """
    program, *arguments = map(str, command)
    require_aarch64(Path(program))
    emulator, plugin = require_emulator(), build_plugin()
    with tempfile.TemporaryDirectory(prefix="mfn-board-") as folder:
        out = Path(folder, "blocks.txt")
        caches = f"l1={core.l1.bytes},l1-ways={core.l1.ways},l2={core.l2.bytes}"
        settings = f"{_quoted(plugin)},out={_quoted(out)},{caches},l2-ways={core.l2.ways}"
        plugged = (emulator, "-plugin", settings, "-cpu", core.qemu, *options)
        # In the temporary folder, where a crash may leave its core file.
        whole = (*plugged, str(Path(program).absolute()), *arguments)
        done = _run(program, whole, seconds, Path(folder))
        if done.code != 0:
            raise _failure(program, core, done)
        if not out.exists():
            raise DeviceError(
                "The program never reached the end of the region to be counted",
                where=program,
                why=done.first_lines() or "it ended without the markers",
                hint="It has to execute hint #112 before the region and hint #113 behind it",
            )
        return read_counts(out)


def require_aarch64(program: Path) -> None:
    """Check that a file is a program for 64-bit little-endian ARM.

    Raises:
        DeviceError: it is not, or cannot be read.
    """
    try:
        with program.open("rb") as handle:
            head = handle.read(20)
    except OSError as error:
        raise DeviceError(
            "The program cannot be read",
            where=str(program),
            why=error.strerror or str(error),
            hint="Check its path",
        ) from error
    is_elf = len(head) == 20 and head[:4] == b"\x7fELF"
    if not is_elf or head[4:6] != b"\x02\x01" or struct.unpack("<H", head[18:20]) != (AARCH64,):
        raise DeviceError(
            "The virtual board runs programs for AArch64 only",
            where=str(program),
            why="it is a program for another architecture" if is_elf else "it is no ELF program",
            hint="Compile it for aarch64-linux",
        )


def _quoted(path: Path) -> str:
    """For QEMU's lists, where a comma is written twice."""
    return str(path).replace(",", ",,")


def _run(program: str, command: Sequence[str], seconds: float, folder: Path) -> Finished:
    try:
        return run_tool(command, timeout=seconds, cwd=folder)
    except DeviceError as error:
        if not isinstance(error.__cause__, subprocess.TimeoutExpired):
            raise
        raise DeviceError(
            "The program did not end on the virtual board",
            where=program,
            why=error.why,
            hint="It may loop for ever; if it is only slow, allow it more time",
        ) from error


def _failure(program: str, core: Core, done: Finished) -> DeviceError:
    if done.code < 0:
        number = -done.code
        known = number in {int(one) for one in signal.Signals}
        name = signal.Signals(number).name if known else f"signal {number}"
        illegal = number == signal.SIGILL
        return DeviceError(
            "The program crashed on the virtual board",
            where=program,
            why=f"it was ended by {name}",
            hint=f"{core.name} lacks an instruction that it uses" if illegal else "Check it",
        )
    return DeviceError(
        "The program failed on the virtual board",
        where=program,
        why=done.first_lines() or f"it ended with {done.code}",
        hint=f"It ran on QEMU's {core.qemu}; see what it says",
    )
