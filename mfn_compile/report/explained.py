"""Tables of why the artifact is as fast as it is: schedules of kernels, and ways to be faster."""

from __future__ import annotations

from collections import Counter

from mfn_compile.device_result import DeviceResult, KernelCost, Way, Ways
from mfn_compile.report import format as fmt
from mfn_compile.report.tables import Fact
from mfn_compile.results import Firmware, Result
from mfn_compile.schedule_result import KernelSchedule

Rows = list[tuple[str, ...]]
SCHEDULE_HEADER = (
    "Kernel",
    "Variant",
    "Layers",
    "Knobs",
    "From",
    "Untuned",
    "Tuned",
    "Gain",
    "Multiply-adds a cycle",
    "Of the peak",
    "Bound by",
)
WAYS_HEADER = ("What", "Where", "Million cycles", "One image", "Within the budget", "Asks for")
SCHEDULES = (
    "How the code of each kernel is ordered. Gains are of the tuning's own cycles, against the "
    "knobs that it began with; knobs from the nearest tuned kernel, and the default ones, "
    "have none of their own. What limits a kernel is told for the device of this report."
)
SOURCES = {"tuned": "tuned", "nearest": "nearest tuned", "default": "default"}


def schedule_facts(found: Firmware) -> list[Fact]:
    """How many kernels were tuned, and what became of the others."""
    rows = []
    for variant in found.variants:
        ours = [row for row in found.schedules if row.variant == variant.variant]
        if ours:
            counts = Counter[str](row.source for row in ours)
            text = ", ".join(
                f"{fmt.count(counts[source])} {name}"
                for source, name in SOURCES.items()
                if counts[source]
            )
            rows.append(Fact(f"Schedules, {variant.variant}", f"{text}, of {len(ours)} kernels"))
    return rows


def schedules(found: Firmware, device: DeviceResult | None) -> Rows:
    """One row a kernel with something to choose."""
    known = {}
    if device is not None:
        known = {(row.kernel, device.variant): row for row in device.kernels}
    return [_schedule(row, known.get((row.kernel, row.variant))) for row in found.schedules]


def _schedule(row: KernelSchedule, cost: KernelCost | None) -> tuple[str, ...]:
    source = SOURCES[row.source]
    if row.source == "nearest":
        source += f": {row.tuned_for}"
    rate = None if cost is None else cost.macs_per_cycle
    share = None if cost is None else cost.of_peak
    return (
        row.kernel,
        row.variant,
        fmt.count(row.layers),
        ", ".join(f"{name} {_value(value)}" for name, value in row.knobs.items()),
        source,
        _cost(row.first_cycles, row.unit),
        _cost(row.cycles, row.unit),
        fmt.ABSENT if row.gain is None else fmt.ratio(row.gain),
        fmt.ABSENT if rate is None else fmt.fixed(rate, 2),
        fmt.ABSENT if share is None else f"{100 * share:.0f} %",
        fmt.ABSENT if cost is None or cost.bound is None else cost.bound,
    )


def _value(value: str | int | bool) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _cost(value: float | None, unit: str) -> str:
    if value is None:
        return fmt.ABSENT
    return f"{fmt.fixed(value / 1000, 1)} {'µs' if unit == 'ns' else 'k cycles'}"


def ways(found: Ways, limit_ms: float) -> Rows:
    """One row a way, in the order of what they ask."""
    return [
        (
            way.text,
            way.device,
            fmt.fixed(way.cycles / 1e6, 1),
            _time(way),
            way.chance(limit_ms) or fmt.ABSENT,
            way.asks,
        )
        for way in found.ways
    ]


def _time(way: Way) -> str:
    time = way.milliseconds
    if time is None:
        return "no time: not on a board"
    return f"{time.value:.1f} ms ({time.low:.1f} to {time.high:.1f})"


def budget_sentence(result: Result) -> str:
    """Whether the budget is met, and the cheapest way there; empty where nothing was modelled."""
    if result.ways is None or result.gates.latency is None:
        return ""
    limit = result.gates.latency.limit
    first = result.ways.ways[0]
    stands = f"{limit:g} ms on one thread of {first.device}: {first.chance(limit)}"
    cheapest = result.ways.cheapest(limit)
    if cheapest is None:
        return f"{stands}. Nothing that was modelled here gets there."
    if cheapest.kind == "as it is":
        return f"{stands}."
    return (
        f"{stands}. Cheapest way there: {cheapest.text} on {cheapest.device}, {_time(cheapest)}, "
        f"{cheapest.chance(limit)}; it asks for {cheapest.asks}."
    )
