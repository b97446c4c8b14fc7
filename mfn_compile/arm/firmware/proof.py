"""The bundle's own proof, run: verify.c against its library, on real or emulated CPUs."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.arm.firmware.linker import INSTALL, Compiler, find_compiler, native_aarch64
from mfn_compile.arm.firmware.process import Finished, run_tool
from mfn_compile.errors import DeviceError, InternalCheckError
from mfn_compile.evaluate.decode import map_cores
from mfn_compile.frozen import Frozen
from mfn_compile.progress import Progress
from mfn_compile.results import CpuProof

EMULATOR = "qemu-aarch64"
RUNS: Mapping[str, tuple[Variant, ...]] = {  # what QEMU's CPUs can
    "cortex-a53": ("neon",),
    "cortex-a76": ("neon", "dotprod"),
    "max": ("neon", "dotprod", "i8mm"),
}
NATIVE = "native"
COMPILE_SECONDS, RUN_SECONDS = 300.0, 1800.0
WARNINGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
RESULT = re.compile(r"^RESULT variants=(\S*) vectors=(\d+) failures=(\d+)$", re.MULTILINE)
HAS = re.compile(r"^#define MFN_HAS_(NEON|DOTPROD|I8MM) 1$", re.MULTILINE)
NO_VARIANT = 3  # verify.c's exit code


class ProofRow(Frozen):
    """One CPU on which every bit was right."""

    cpu: str = Field(description="QEMU's name of the CPU, or native")
    variants: tuple[Variant, ...] = Field(description="variants that ran, each on every vector")
    vectors: int
    passed: bool
    output: str = Field(description="everything that verify printed")


class NoVariantError(DeviceError):
    """This machine's own CPU lacks what every variant of the library needs."""


@dataclass(frozen=True)
class _Run:
    cpu: str
    command: tuple[str, ...]
    expected: tuple[str, ...] | None  # variants that must run; None where that is not known


def prove(bundle: Path, progress: Progress, *, threads: int = 2) -> tuple[ProofRow, ...]:
    """Build the bundle's verify.c against its library and run it on every CPU there is.

    Natively on AArch64; elsewhere under QEMU as a Cortex-A53 (no dot products), a Cortex-A76 (no
    matrix products) and QEMU's largest CPU. CPUs that can run none of the bundle's variants are
    left out.

    Args:
        bundle: the folder with verify.c, include/, lib/libmfn.a and golden/.
        progress: where to report.
        threads: threads that call the library at once.

    Returns:
        One row a CPU.

    Raises:
        DeviceError: no compiler or no QEMU, or one that failed.
        InternalCheckError: an embedding differs, a program crashed, or a wrong variant ran.
    """
    compiler, emulator = require_prover()
    bundle = bundle.resolve()
    with tempfile.TemporaryDirectory(prefix="mfn-proof-") as folder:
        program = _build(bundle, compiler, Path(folder))
        runs = _runs(bundle, program, emulator)
        with progress.task("running the library's own proof", total=len(runs)) as task:
            rows = []
            for row in map_cores(lambda run: _prove(bundle, run, threads, Path(folder)), runs):
                rows.append(row)
                task.advance(note=row.cpu)
    return tuple(rows)


def find_emulator() -> str | None:
    """QEMU's user mode for AArch64, None where it is missing."""
    return shutil.which(EMULATOR)


def require_prover() -> tuple[Compiler, str | None]:
    """What the proof is built and run with; the emulator is None on AArch64 itself.

    Raises:
        DeviceError: one of the two is missing.
    """
    compiler = find_compiler()
    emulator = None if native_aarch64() else find_emulator()
    missing = [] if compiler else ["no C compiler for AArch64"]
    missing += [] if emulator or native_aarch64() else [f"no {EMULATOR}"]
    if compiler is None or missing:
        raise DeviceError(
            "The compiled library cannot be run here",
            where=", ".join(missing),
            why="the proof runs it on this machine or under QEMU",
            hint=f"Install what is missing: {INSTALL}",
        )
    return compiler, emulator


def summary(rows: Iterable[ProofRow]) -> tuple[CpuProof, ...]:
    """The rows for a report, without what was printed."""
    return tuple(
        CpuProof(
            cpu=row.cpu,
            emulated=row.cpu != NATIVE,
            variants=row.variants,
            vectors=row.vectors,
        )
        for row in rows
    )


def _build(bundle: Path, compiler: Compiler, folder: Path) -> Path:
    program = folder / "verify"
    command = compiler.command if compiler.kind == "native" else compiler.static
    inputs = (f"-I{bundle / 'include'}", str(bundle / "verify.c"), str(bundle / "lib/libmfn.a"))
    done = run_tool([*command, *WARNINGS, *inputs, "-o", str(program)], timeout=COMPILE_SECONDS)
    if done.code != 0:
        raise DeviceError(
            "The proof program cannot be built",
            where=str(bundle / "verify.c"),
            why=done.first_lines() or f"the compiler ended with {done.code}",
            hint=f"Check the compiler, or install another: {INSTALL}",
        )
    return program


def _runs(bundle: Path, program: Path, emulator: str | None) -> list[_Run]:
    header = (bundle / "include/mfn.h").read_text(encoding="utf-8")
    variants = tuple(name.lower() for name in HAS.findall(header))
    if emulator is None:
        return [_Run(NATIVE, (str(program),), None)]
    runs = []
    for cpu, able in RUNS.items():
        expected = tuple(name for name in variants if name in able)
        if expected:
            runs.append(_Run(cpu, (emulator, "-cpu", cpu, str(program)), expected))
    return runs


def _prove(bundle: Path, run: _Run, threads: int, folder: Path) -> ProofRow:
    arguments = (str(bundle / "golden"), "--threads", str(threads))
    # In the temporary folder, where a crash may leave its core file.
    done = run_tool([*run.command, *arguments], timeout=RUN_SECONDS, cwd=folder)
    result = RESULT.search(done.stdout)
    if done.code != 0 or result is None or result[3] != "0":
        raise _failure(run, done)
    ran = tuple(name for name in result[1].split(",") if name)
    if run.expected is not None and ran != run.expected:
        raise _wrong(run, f"{', '.join(ran) or 'nothing'} ran instead of {', '.join(run.expected)}")
    return ProofRow.model_validate(
        {
            "cpu": run.cpu,
            "variants": ran,
            "vectors": int(result[2]),
            "passed": True,
            "output": done.stdout,
        }
    )


def _failure(run: _Run, done: Finished) -> InternalCheckError | DeviceError:
    if done.code < 0:
        return _wrong(run, f"the program was ended by {_signal_name(-done.code)}{_last(done)}")
    failed = next((line for line in done.stdout.splitlines() if line.startswith("FAIL")), None)
    if failed is not None:
        return _wrong(run, failed)
    if done.code == NO_VARIANT:
        return NoVariantError(
            "This CPU can run no variant of the compiled library",
            where=run.cpu,
            hint="Run it on a CPU that the target is for",
        )
    why = done.first_lines() or "it printed nothing"
    return _wrong(run, f"the program ended with {done.code}: {why}")


def _last(done: Finished) -> str:
    lines = done.stdout.splitlines()
    return f" after: {lines[-1]}" if lines else " before it printed anything"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wrong(run: _Run, why: str) -> InternalCheckError:
    return InternalCheckError(
        "The compiled library is not what its oracle says",
        where=run.cpu,
        why=why,
        hint="Do not ship it; report it with the command that you ran",
    )
