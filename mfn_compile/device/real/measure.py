"""A bundle's library on a real board: golden vectors, latency, and the time of every kernel."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.arm.firmware.process import Finished, run_tool
from mfn_compile.device.real.address import RpcAddress
from mfn_compile.device.real.answer import Answer
from mfn_compile.device.real.failures import code_failed, hung
from mfn_compile.device.real.kept import Kept, Shelf
from mfn_compile.device.real.programs import (
    CONVENTION,
    GOLDEN,
    LAYERS,
    LIBRARY,
    RESULT,
    SOURCE,
    LayerSource,
    build_program,
    build_shared,
    find_layers,
    mark_layers,
    mark_options,
    pack_golden,
    variants_of,
)
from mfn_compile.device.real.run import BoardRun, LayerTime
from mfn_compile.device.real.session import Job
from mfn_compile.device.real.sharing import Shared, lost_note
from mfn_compile.device.real.summary import CHECK, ROUND, summarize
from mfn_compile.device.real.tracker import count_boards
from mfn_compile.device.runner import open_bundle
from mfn_compile.device.tools import require_cross_compiler
from mfn_compile.errors import DeviceError, InternalCheckError
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.progress import Progress

__all__ = [
    "Amount",
    "BoardRun",
    "LayerSource",
    "LayerTime",
    "RpcAddress",
    "measure_local",
    "measure_rpc",
]

SECONDS = 300.0
LOCAL = "this machine"
CHECK_NUMBERS: Mapping[Variant, int] = {"neon": 0, "dotprod": 1, "i8mm": 4}  # as in board.c
TIME_NUMBER, LAYERS_NUMBER = 2, 3


@dataclass(frozen=True)
class Amount:
    """How much is timed.

    Attributes:
        rounds: apart from each other, perhaps on several boards.
        warm_up: inferences before each round that are not counted.
        repeats: inferences of a round, fewer where `budget_ms` ends before.
        layers: inferences whose kernels are timed.
        budget_ms: of each round; 5 inferences are timed in any case.
    """

    rounds: int = 3
    warm_up: int = 5
    repeats: int = 100
    layers: int = 30
    budget_ms: int = 10_000


@dataclass(frozen=True)
class _Prepared:
    header: Path
    golden: Path
    variants: tuple[Variant, ...]
    files: dict[str, Path]
    calls: Mapping[Variant, tuple[tuple[str, str], ...]]

    def jobs(self, amount: Amount) -> list[Job]:
        checks = [Job(f"{CHECK}-{name}", CHECK_NUMBERS[name], LIBRARY) for name in self.variants]
        limits = (amount.warm_up, amount.repeats, amount.budget_ms)
        rounds = [
            Job(f"{ROUND}-{number}", TIME_NUMBER, LIBRARY, *limits)
            for number in range(amount.rounds)
        ]
        shorter = (amount.warm_up, amount.layers, amount.budget_ms)
        layers = [Job("layers", LAYERS_NUMBER, LAYERS, *shorter)] if self.calls else []
        return [*checks, *rounds, *layers]


def measure_rpc(
    bundle: Path,
    address: RpcAddress,
    *,
    resume: Path,
    progress: Progress,
    seconds: float = SECONDS,
    amount: Amount | None = None,
    layers: LayerSource | None = None,
    compiler: tuple[str, ...] | None = None,
) -> BoardRun:
    """Check and time a bundle's library on the boards that a tracker has under one key.

    Args:
        bundle: folder with include/, lib/libmfn.a and golden/.
        resume: folder for answers of a measurement that could not be finished.
        seconds: for everything on the boards, waiting for a free one included.
        amount: how much is timed.
        layers: what the kernels are compiled from; looked for in the bundle by default.
        compiler: command that links shared objects for the boards; looked for by default.

    Raises:
        BadInputError: the bundle lacks a file.
        DeviceError: no compiler, or the tracker or a board is missing, refuses, hangs, is too old,
            too full, or was lost; the message says which.
        InternalCheckError: the library computes other bits there than its golden vectors.
    """
    amount = amount or Amount()
    count_boards(address, seconds)  # before anything is built
    command = compiler or require_cross_compiler().shared
    with tempfile.TemporaryDirectory(prefix="mfn-rpc-") as folder:
        made = _prepare(bundle, Path(folder), layers, progress, command, shared=True)
        jobs = made.jobs(amount)
        shelf = Shelf(resume / _identity(made, bundle, address, amount))
        known = {job.name: kept for job in jobs if (kept := shelf.get(job.name)) is not None}
        for kept in known.values():
            _judge(kept.board, kept.answer)
        if known:
            progress.note(f"{len(known)} of {len(jobs)} jobs were done by an earlier try")
        title = f"measuring on {address}"
        with progress.task(title, total=len(jobs)) as task:
            task.advance(len(known))
            end = time.monotonic() + seconds
            shared = Shared(address, made.files, shelf, _judge, end, task, done=dict(known))
            shared.run([job for job in jobs if job.name not in known])
        found = summarize(
            shared.done,
            made.calls,
            made.variants,
            warm_up=amount.warm_up,
            resumed=len(known),
            warnings=lost_note(shared.errors),
        )
    shelf.clear()
    return found


def measure_local(
    bundle: Path,
    *,
    progress: Progress,
    seconds: float = SECONDS,
    amount: Amount | None = None,
    layers: LayerSource | None = None,
    runner: Sequence[str] | None = None,
    compiler: tuple[str, ...] | None = None,
) -> BoardRun:
    """Check and time a bundle's library on this machine, which must be AArch64 Linux.

    Args:
        runner: what starts AArch64 programs here, such as QEMU; tests use it.
        compiler: command that links programs for it; looked for by default.

    Raises:
        BadInputError: the bundle lacks a file.
        DeviceError: this machine is another, a compiler is missing, or the program failed or did
            not end within `seconds`.
        InternalCheckError: the library computes other bits here than its golden vectors.
    """
    if runner is None and not native_aarch64():
        raise DeviceError(
            "This machine is no board: --device local is for AArch64 Linux",
            hint="Run mfn-compile on the board, or use rpc://HOST:PORT/KEY or virtual:NAME",
        )
    amount, end = amount or Amount(), time.monotonic() + seconds
    command = compiler or _program_compiler(runner)
    done: dict[str, Kept] = {}
    with tempfile.TemporaryDirectory(prefix="mfn-local-") as name:
        folder = Path(name)
        made = _prepare(bundle, folder, layers, progress, command, shared=False)
        jobs = made.jobs(amount)
        with progress.task("measuring on this machine", total=len(jobs)) as task:
            for job in jobs:
                content = _run_local(made, job, folder, tuple(runner or ()), end)
                done[job.name] = kept = Shelf(folder / "answers").put(job.name, LOCAL, content)
                _judge(LOCAL, kept.answer)
                task.advance(note=job.name)
        return summarize(done, made.calls, made.variants, warm_up=amount.warm_up, resumed=0)


def _program_compiler(runner: Sequence[str] | None) -> tuple[str, ...]:
    found = require_cross_compiler()
    return found.command if runner is None and found.kind == "native" else found.static


def _prepare(
    bundle: Path,
    folder: Path,
    layers: LayerSource | None,
    progress: Progress,
    command: tuple[str, ...],
    *,
    shared: bool,
) -> _Prepared:
    opened = open_bundle(bundle)
    golden = folder / GOLDEN
    golden.write_bytes(pack_golden(bundle))
    build = build_shared if shared else build_program
    library, marked = folder / LIBRARY, folder / LAYERS
    source = layers or find_layers(bundle)
    with progress.task("building what a board runs", total=1 if source is None else 2) as task:
        build(command, opened.header, opened.library, library)
        task.advance()
        files, calls = {GOLDEN: golden, LIBRARY: library}, {}
        if source is not None:
            made = mark_layers(source)
            archive = folder / "marked.a"
            archive.write_bytes(made.archive)
            build(command, opened.header, archive, marked, mark_options(made))
            files[LAYERS], calls = marked, dict(made.calls)
            task.advance()
    return _Prepared(opened.header, golden, variants_of(bundle), files, calls)


def _identity(made: _Prepared, bundle: Path, address: RpcAddress, amount: Amount) -> str:
    """What must be the same for an earlier try's answers to count."""
    parts = {
        "library": file_sha256(open_bundle(bundle).library),
        "golden": file_sha256(made.golden),
        "program": [file_sha256(path) for path in (SOURCE, CONVENTION)],
        "calls": {name: list(map(list, calls)) for name, calls in made.calls.items()},
        "board": str(address),
        "amount": vars(amount),
    }
    return value_sha256(parts)[:24]


def _judge(board: str, answer: Answer) -> None:
    """Raise where the library computed other bits."""
    if answer.wrong is not None:
        raise InternalCheckError(
            "The library computes other bits on the board than its golden vectors",
            where=f"golden vector {answer.wrong} on {answer.node or board}",
            hint="Do not ship it; check the board's memory, and report it with the command",
        )


def _run_local(
    made: _Prepared, job: Job, folder: Path, runner: tuple[str, ...], end: float
) -> bytes:
    limits = (job.number, job.warm_up, job.repeats, job.budget_ms)
    command = [*runner, str(made.files[job.library]), str(folder), *map(str, limits)]
    left = end - time.monotonic()
    try:
        done = run_tool(command, timeout=max(left, 0.001), cwd=folder)
    except DeviceError as error:
        if isinstance(error.__cause__, subprocess.TimeoutExpired):
            raise hung(LOCAL, f"while it did the job {job.name}") from error
        raise
    if done.code < 0 or done.stderr.strip():
        raise _crashed(job, done)
    if done.code:
        raise code_failed(LOCAL, done.code)
    return (folder / RESULT).read_bytes()


def _crashed(job: Job, done: Finished) -> DeviceError:
    said = done.first_lines() or "it printed nothing"
    signal = f"it was ended by signal {-done.code}; " if done.code < 0 else ""
    return DeviceError(
        "The program that measures failed",
        where=f"{LOCAL}, {job.name}",
        why=f"{signal}{said}",
        hint="Check that the CPU runs the library: mfn-compile verify BUNDLE",
    )
