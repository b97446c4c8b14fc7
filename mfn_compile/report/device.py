"""Tables of an inference on a device: the whole, and kernel by kernel."""

from __future__ import annotations

from mfn_compile.device_result import BoardState, DeviceResult, KernelCost
from mfn_compile.report import format as fmt
from mfn_compile.report.tables import Fact

HEADER = (
    "Kernel",
    "No.",
    "Layers",
    "Cycles",
    "Time",
    "Share",
    "Multiply-adds a cycle",
    "Of the peak",
    "Bytes moved",
    "Of these, memory",
    "Bound by",
    "Code",
)
ROOFLINE = (
    "Every kernel by its multiply-adds a byte moved into the L1 cache, and what it reaches a "
    "cycle. Numbers as in the table; lines are the core's peak, and nominal rates of L2 and memory."
)
BARS = "Share of every kernel, by its number in the table; marked where memory bounds it."


def explanation(found: DeviceResult) -> str:
    """What kind of number this is."""
    if found.kind == "measured":
        return "Measured on the board named below, on one core, after a warm-up."
    if found.milliseconds is None:
        return (
            "Modelled cycles of a core: the library ran under an emulator, and a model of the "
            "pipeline costed every block. They leave out the waiting for memory and are no time."
        )
    return (
        "The library ran under an emulator, and a model of the core's pipeline costed every block; "
        "the cycles were scaled by how the model compared with times published for this board. "
        "Nothing ran on the board itself."
    )


def facts(found: DeviceResult) -> list[Fact]:
    """The whole inference."""
    rows = [Fact("Device", found.device), Fact("Variant", found.variant)]
    if found.milliseconds is not None:
        rows += _times(found)
    if found.cycles is not None:
        rows.append(Fact("Cycles", fmt.count(round(found.cycles))))
    counts = (
        ("Instructions", found.instructions),
        ("L1 misses", found.l1_misses),
        ("L2 misses", found.l2_misses),
        ("Multiply-adds, padding included", found.macs or None),
    )
    rows += [Fact(name, fmt.count(value)) for name, value in counts if value is not None]
    if found.macs_per_cycle is not None:
        rows.append(Fact("Multiply-adds a cycle", _rate(found)))
    if found.model:
        rows.append(Fact("Cycles from", found.model))
    return rows + ([] if found.state is None else _state(found.state))


def _times(found: DeviceResult) -> list[Fact]:
    time = found.milliseconds
    assert time is not None
    rows = [Fact("Time of one image", found.says())]
    for name, value in (("90th percentile", time.p90), ("99th percentile", time.p99)):
        if value is not None:
            rows.append(Fact(name, fmt.milliseconds(value)))
    return rows


def _rate(found: DeviceResult) -> str:
    assert found.macs_per_cycle is not None
    text = fmt.fixed(found.macs_per_cycle, 2)
    if found.peaks is None:
        return text
    share = 100 * found.macs_per_cycle / found.peaks.macs_per_cycle
    return f"{text}, {share:.0f} % of the core's {found.peaks.macs_per_cycle:g}"


def _state(state: BoardState) -> list[Fact]:
    between = [fmt.fixed(value, 0) for value in state.frequency_mhz]
    heat = [fmt.fixed(value, 0) for value in state.temperature_c]
    core = "not chosen" if state.affinity is None else f"core {state.affinity}"
    return [
        Fact("Boards", ", ".join(state.boards)),
        Fact("Operating system's kernel", state.kernel),
        Fact("Ran on", core),
        Fact("Runs", f"{fmt.count(state.warm_up)} to warm up, {fmt.count(state.repeats)} timed"),
        Fact("Golden vectors right to the bit", fmt.count(state.vectors)),
        Fact("Frequency governor", state.governor or "not exposed"),
        Fact("Frequency", f"{' then '.join(between)} MHz" if between else "not exposed"),
        Fact("Temperature", f"{' then '.join(heat)} °C" if heat else "not exposed"),
    ]


def short(found: DeviceResult) -> list[Fact]:
    """For the console."""
    rows = [Fact("On the device", found.says())]
    if found.kind == "modelled" and found.cycles is not None and found.instructions is not None:
        counts = f"{found.cycles / 1e6:.1f} million cycles, {found.instructions / 1e6:.1f} million "
        counts += f"instructions, {fmt.count(found.l1_misses or 0)} L1 and "
        rows.append(Fact("Modelled", f"{counts}{fmt.count(found.l2_misses or 0)} L2 misses"))
    top = [f"{row.kernel} {100 * row.share:.0f} %" for row in found.kernels[:3]]
    return rows + ([Fact("Most of it in", "; ".join(top))] if top else [])


def kernels(found: DeviceResult) -> list[tuple[str, ...]]:
    """One row a kernel, in the order of their cost."""
    return [_row(number, row) for number, row in enumerate(found.kernels, start=1)]


def _row(number: int, row: KernelCost) -> tuple[str, ...]:
    return (
        row.kernel,
        str(number),
        fmt.count(row.layers),
        fmt.ABSENT if row.cycles is None else fmt.count(round(row.cycles)),
        fmt.ABSENT if row.microseconds is None else f"{row.microseconds:.1f} µs",
        f"{100 * row.share:.1f} %",
        fmt.ABSENT if row.macs_per_cycle is None else fmt.fixed(row.macs_per_cycle, 2),
        fmt.ABSENT if row.of_peak is None else f"{100 * row.of_peak:.0f} %",
        fmt.ABSENT if row.bytes_moved is None else fmt.count(row.bytes_moved),
        fmt.ABSENT if row.memory_bytes is None else fmt.count(row.memory_bytes),
        row.bound or fmt.ABSENT,
        fmt.ABSENT if row.code_bytes is None else fmt.count(row.code_bytes),
    )
