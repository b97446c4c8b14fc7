"""From a board's answers to a `BoardRun`: percentiles, kernel times, and what to be wary of."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.firmware.facts import INSTRUCTIONS, VARIANTS, Variant
from mfn_compile.device.board import cores
from mfn_compile.device.real.answer import Answer, State
from mfn_compile.device.real.kept import Kept
from mfn_compile.device.real.run import BoardRun, LayerTime
from mfn_compile.device.spec import core_title
from mfn_compile.errors import DeviceError

ARM = ("aarch64", "arm64")
ARM_LIMITED = "0x41"  # as an implementer of cores
MOVED, HEATED, SPREAD, SUM = 0.02, 10.0, 0.05, 0.05
STEADY = "performance"
ROUND, CHECK, LAYERS = "round", "check", "layers"


def summarize(
    found: Mapping[str, Kept],
    calls: Mapping[Variant, tuple[tuple[str, str], ...]],
    available: Sequence[Variant],
    *,
    warm_up: int,
    resumed: int,
    warnings: Sequence[str] = (),
) -> BoardRun:
    """The result of a measurement.

    Args:
        found: answers by job: check-VARIANT, round-NUMBER, layers.
        calls: layers and kernels of the marked library, by variant.
        available: variants of the library.
        warnings: said before those that the numbers give.

    Raises:
        DeviceError: no board ran the library.
    """
    timed = _timed(found, available)
    times = np.concatenate([kept.answer.times_ns for kept in timed]) / 1e6
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    first, last = timed[0].answer, timed[-1].answer
    variant = _best(first, available)
    checked = {
        name.removeprefix(f"{CHECK}-"): kept.answer
        for name, kept in found.items()
        if name.startswith(CHECK) and not kept.answer.skipped
    }
    layers, said = _layers(found.get(LAYERS), calls, variant, p50)
    return BoardRun(
        title=_title(first),
        core=_core(first),
        architecture=first.machine,
        kernel=first.kernel,
        boards=tuple(dict.fromkeys(_board(kept) for kept in found.values())),
        variant=variant,
        affinity=None if first.core < 0 else first.core,
        warm_up=warm_up,
        repeats=len(times),
        p50_ms=max(p50, 1e-6),
        p90_ms=max(p90, 1e-6),
        p99_ms=max(p99, 1e-6),
        governor=first.before.governor,
        frequency_mhz=_numbers(first.before.kilohertz, last.after.kilohertz),
        temperature_c=_numbers(first.before.millidegrees, last.after.millidegrees),
        vectors=first.vectors,
        variants=tuple(name for name in available if name in checked),
        layers=layers,
        resumed=resumed,
        warnings=(*warnings, *_wary(timed), *said),
    )


def _best(answer: Answer, available: Sequence[Variant]) -> Variant:
    """What mfn_embed ran."""
    able: dict[Variant, bool] = {"i8mm": answer.i8mm, "dotprod": answer.dotprod}
    return next((name for name, runs in able.items() if runs and name in available), "neon")


def _timed(found: Mapping[str, Kept], available: Sequence[Variant]) -> list[Kept]:
    """The rounds in which the library ran, in their order.

    Raises:
        DeviceError: there are none.
    """
    rounds = [kept for name, kept in sorted(found.items()) if name.startswith(ROUND)]
    timed = [kept for kept in rounds if kept.answer.times_ns]
    if not timed:
        needed: Variant = next((name for name in VARIANTS[1:] if name in available), "dotprod")
        raise DeviceError(
            "The board can run no variant of the library",
            where=rounds[0].board if rounds else "",
            why=f"its CPU lacks the {INSTRUCTIONS[needed]} instructions",
            hint="Compile for a target with the variant neon, such as arm64",
        )
    return timed


def _board(kept: Kept) -> str:
    node = kept.answer.node
    return f"{node} ({kept.board})" if node and node != kept.board else kept.board


def _emulated(answer: Answer) -> bool:
    """Whether the kernel says ARM and /proc/cpuinfo, which is the host's then, does not."""
    return answer.machine in ARM and not answer.implementer


def _title(answer: Answer) -> str:
    """What the board calls itself, else its core, else its architecture."""
    if _emulated(answer):
        return f"an emulator of {answer.machine}"
    if answer.model:
        return answer.model
    if (core := _core(answer)) is not None:
        return core_title(core)
    return answer.cpu or f"{answer.node or 'a board'}, {answer.machine or 'unknown'}"


def _core(answer: Answer) -> str | None:
    """Name of the core that it ran on, where there is a model of it."""
    parts = {f"0x{core.part:03x}": core.name for core in cores()}
    return parts.get(answer.part.lower()) if answer.implementer == ARM_LIMITED else None


def _numbers(*values: int | None) -> tuple[float, ...]:
    """Thousandths to units; nothing where one is missing."""
    return () if None in values else tuple(value / 1000 for value in values if value is not None)


def _layers(
    kept: Kept | None,
    calls: Mapping[Variant, tuple[tuple[str, str], ...]],
    variant: Variant,
    p50: float,
) -> tuple[tuple[LayerTime, ...], tuple[str, ...]]:
    if kept is None or not kept.answer.layers_ns:
        return (), ("Kernels were not timed: the bundle lacks the network they are compiled from.",)
    rows = np.array(kept.answer.layers_ns) / 1e3
    named = calls.get(variant, ())
    if rows.shape[1] != len(named):
        raise DeviceError(
            "The board's kernel times do not fit the network",
            where=kept.board,
            why=f"{rows.shape[1]} of {len(named)} calls",
            hint="Run again",
        )
    strips: dict[tuple[str, str], NDArray[np.float64]] = {}
    for call, times in zip(named, rows.T, strict=True):
        strips[call] = strips.get(call, np.zeros(len(rows))) + times
    medians = {call: float(np.median(times)) for call, times in strips.items()}
    whole = max(sum(medians.values()), 1e-9)
    layers = tuple(
        LayerTime(layer=layer, kernel=kernel, microseconds=one, share=min(one / whole, 1.0))
        for (layer, kernel), one in medians.items()
    )
    off = whole / 1e3 / max(p50, 1e-9) - 1
    if abs(off) <= SUM:
        return layers, ()
    return layers, (
        f"The kernels' times add up to {whole / 1e3:.3f} ms, {off:+.0%} against the whole: "
        "take them as shares.",
    )


def _wary(timed: Sequence[Kept]) -> tuple[str, ...]:
    """What moved while it was timed, or was not as it should be."""
    said = []
    answers = [kept.answer for kept in timed]
    if any(_emulated(answer) for answer in answers):
        said.append(
            "/proc/cpuinfo there is none of an ARM processor: it is an emulator, and its times say "
            "nothing about a board."
        )
    governors = {s.governor for a in answers for s in (a.before, a.after)} - {None}
    if governors - {STEADY}:
        name = ", ".join(sorted(str(one) for one in governors))
        said.append(f"The governor was {name}, not {STEADY}: the clock may have moved.")
    said += _moved([s for a in answers for s in (a.before, a.after)])
    medians = [(kept.board, statistics.median(kept.answer.times_ns)) for kept in timed]
    said += _apart(medians)
    if len({_title(answer) for answer in answers}) > 1:
        said.append("The boards that share the key are not alike.")
    return tuple(said)


def _moved(states: Sequence[State]) -> list[str]:
    said = []
    clocks = [s.kilohertz / 1000 for s in states if s.kilohertz]
    if clocks and max(clocks) / min(clocks) - 1 > MOVED:
        said.append(f"The clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz.")
    heat = [s.millidegrees / 1000 for s in states if s.millidegrees is not None]
    if heat and max(heat) - min(heat) > HEATED:
        said.append(f"The temperature went from {min(heat):.0f} to {max(heat):.0f} C.")
    return said


def _apart(medians: Sequence[tuple[str, float]]) -> list[str]:
    boards: dict[str, list[float]] = {}
    for board, median in medians:
        boards.setdefault(board, []).append(max(median, 1.0))
    said = []
    worst = max(max(m) / min(m) for m in boards.values()) - 1
    if worst > SPREAD:
        said.append(f"Rounds on one board differed by {worst:.0%}.")
    typical = [statistics.median(m) for m in boards.values()]
    apart = max(typical) / min(typical) - 1
    if apart > SPREAD:
        said.append(f"The boards differed by {apart:.0%}; the percentiles are of all together.")
    return said
