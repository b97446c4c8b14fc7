"""A board that is there as a device of the pipeline: what it measured, kernel by kernel."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mfn_compile.device.board import Core, find_core
from mfn_compile.device.kernels import calls_of, macs_of
from mfn_compile.device.real.measure import (
    BoardRun,
    LayerSource,
    LayerTime,
    RpcAddress,
    measure_local,
    measure_rpc,
)
from mfn_compile.device.spec import LOCAL
from mfn_compile.device_result import BoardState, DeviceResult, KernelCost, Milliseconds, Peaks
from mfn_compile.progress import Progress

TRAFFIC = "Instructions, bytes moved, what bounds a kernel, and code sizes are the virtual board's."
MODELLED = (
    "instructions",
    "l1_misses",
    "l2_misses",
    "bytes_moved",
    "memory_bytes",
    "memory_cycles",
    "bound",
    "code_bytes",
)


def measure(
    text: str,
    bundle: Path,
    layers: LayerSource | None,
    *,
    resume: Path,
    progress: Progress,
    seconds: float,
) -> DeviceResult:
    """Check and time a library on `local` or rpc://HOST:PORT/KEY.

    Args:
        bundle: folder with include/, lib/libmfn.a and golden/.
        layers: what its kernels are compiled from; None looks for it in the bundle.
        resume: folder for the answers of a measurement that could not be finished.
        seconds: after which a board is given up.

    Raises:
        UsageError: the text is no such device.
        BadInputError: the bundle lacks a file.
        DeviceError: a compiler or the board is missing, or failed.
        InternalCheckError: the library computes other bits there than its golden vectors.
    """
    if text == LOCAL:
        found = measure_local(bundle, progress=progress, seconds=seconds, layers=layers)
    else:
        address = RpcAddress.parse(text)
        found = measure_rpc(
            bundle, address, resume=resume, progress=progress, seconds=seconds, layers=layers
        )
    return of_run(found, text)


def of_run(found: BoardRun, text: str) -> DeviceResult:
    """What a measurement means on the device `text`."""
    core = None if found.core is None else find_core(found.core)
    clock = found.frequency_mhz[0] if found.frequency_mhz else None
    kernels = _kernels(found, core, clock)
    macs = sum(row.macs or 0 for row in kernels)
    cycles = None if clock is None else found.p50_ms * 1e3 * clock
    return DeviceResult(
        device=text,
        kind="measured",
        title=_title(found, clock),
        core=found.core,
        clock_ghz=None if clock is None else clock / 1000,
        threads=found.threads,
        variant=found.variant,
        cycles=cycles,
        macs=macs,
        macs_per_cycle=None if cycles is None or not macs else macs / cycles,
        milliseconds=Milliseconds(value=found.p50_ms, p90=found.p90_ms, p99=found.p99_ms),
        peaks=None if core is None else _peaks(core, found),
        state=BoardState(
            boards=found.boards,
            kernel=found.kernel,
            affinity=found.affinity,
            warm_up=found.warm_up,
            repeats=found.repeats,
            vectors=found.vectors,
            governor=found.governor,
            frequency_mhz=found.frequency_mhz,
            temperature_c=found.temperature_c,
        ),
        kernels=kernels,
        warnings=found.warnings,
    )


def with_traffic(measured: DeviceResult, modelled: DeviceResult) -> DeviceResult:
    """Measured kernels with what only the virtual board of the same core tells: bytes and code."""
    known = {row.kernel: row for row in modelled.kernels}
    rows = tuple(_with(row, known.get(row.kernel)) for row in measured.kernels)
    return measured.model_copy(update={"kernels": rows, "warnings": (*measured.warnings, TRAFFIC)})


def _with(row: KernelCost, known: KernelCost | None) -> KernelCost:
    if known is None:
        return row
    return row.model_copy(update={name: getattr(known, name) for name in MODELLED})


def _title(found: BoardRun, clock: float | None) -> str:
    return found.title if clock is None else f"{found.title}, {clock / 1000:g} GHz"


def _peaks(core: Core, found: BoardRun) -> Peaks:
    return Peaks(
        macs_per_cycle=core.peak(found.variant),
        l2_bytes_per_cycle=core.transfer.l2,
        memory_bytes_per_cycle=core.transfer.memory,
    )


def _kernels(found: BoardRun, core: Core | None, clock: float | None) -> tuple[KernelCost, ...]:
    """One row a kernel: the calls of all its layers together, the most expensive first."""
    grouped: dict[str, list[LayerTime]] = defaultdict(list)
    for call in found.layers:
        grouped[call.kernel].append(call)
    peak = None if core is None else core.peak(found.variant)
    rows = [_row(name, calls, clock, peak) for name, calls in grouped.items()]
    return tuple(sorted(rows, key=lambda row: (-(row.microseconds or 0.0), row.kernel)))


def _row(
    kernel: str, calls: list[LayerTime], clock: float | None, peak: float | None
) -> KernelCost:
    time = sum(call.microseconds for call in calls)
    cycles = None if clock is None else time * clock
    layer = macs_of(kernel)
    macs = None if layer is None else layer * len(calls)
    rate = macs / cycles if macs is not None and cycles else None
    return KernelCost(
        kernel=kernel,
        in_library=True,
        layers=len({call.layer for call in calls}),
        calls=len(calls) * calls_of(kernel),
        share=min(1.0, sum(call.share for call in calls)),
        microseconds=time,
        cycles=cycles,
        macs=macs,
        macs_per_cycle=rate,
        of_peak=None if rate is None or peak is None else rate / peak,
    )
