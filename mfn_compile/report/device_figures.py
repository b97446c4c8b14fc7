"""Figures of an inference on a device: a roofline, and the cost of every kernel."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import NullLocator

from mfn_compile.device_result import DeviceResult, KernelCost, Peaks
from mfn_compile.report.figures import FP32, INK, INT8, MARK, MUTED, STYLE, canvas, svg

NAMED = 8  # kernels with their number beside the point; more would hide each other
TICKS = 8  # labels of an axis, at most
SHOWN = 24  # bars; the rest is thinner than a line


def has_roofline(found: DeviceResult) -> bool:
    """Whether the device knows its peaks, and bytes and rates of some kernel."""
    return found.peaks is not None and any(_is_point(row) for row in found.kernels)


def roofline(found: DeviceResult) -> str:
    """Multiply-adds a cycle of every kernel over its multiply-adds a byte.

    The roof follows S. Williams et al., "Roofline: an insightful visual performance model", 2009.
    """
    assert found.peaks is not None
    points = [(n, row) for n, row in enumerate(found.kernels, start=1) if _is_point(row)]
    intensity = np.array([row.macs / row.bytes_moved for _, row in points])  # type: ignore[operator]
    rates = np.array([row.macs_per_cycle for _, row in points], float)
    shares = np.array([row.share for _, row in points])
    colours = [MARK if row.bound == "memory" else INT8 for _, row in points]
    with mpl.rc_context({**STYLE, "svg.hashsalt": "roofline"}):
        figure, axes = canvas()
        span = np.geomspace(intensity.min() / 3, intensity.max() * 3, 60)
        for rate, dashes, name in _roofs(found.peaks):
            roof = np.minimum(found.peaks.macs_per_cycle, rate * span)
            axes.plot(span, roof, color=FP32, dashes=dashes, linewidth=1.4, label=name)
        axes.scatter(intensity, rates, s=12 + 900 * shares, c=colours, alpha=0.75, linewidths=0)
        for (number, _), x, y in list(zip(points, intensity, rates, strict=True))[:NAMED]:
            axes.annotate(str(number), (x, y), ha="center", va="center", color=INK, fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlim(span[0], span[-1])
        axes.set_ylim(rates.min() / 2, found.peaks.macs_per_cycle * 1.5)
        _plain_ticks(axes.xaxis, *axes.get_xlim())
        _plain_ticks(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel("Multiply-adds a byte")
        axes.set_ylabel("Multiply-adds a cycle")
        axes.grid(True)
        axes.legend(frameon=False, loc="lower right")
        return svg(figure, "roofline", "Roofline of the kernels")


def _plain_ticks(axis: Any, low: float, high: float) -> None:
    """Powers of two as plain numbers: matplotlib's own labels are mathematics, which is off."""
    exponents = range(int(np.ceil(np.log2(low))), int(np.floor(np.log2(high))) + 1)
    step = -(-len(exponents) // TICKS)
    values = [2.0**n for n in exponents[::step]]
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())


def _is_point(row: KernelCost) -> bool:
    return bool(row.macs and row.bytes_moved and row.macs_per_cycle)


def _roofs(peaks: Peaks) -> tuple[tuple[float, tuple[float | None, float | None], str], ...]:
    return (
        (peaks.l2_bytes_per_cycle, (None, None), "from L2"),
        (peaks.memory_bytes_per_cycle, (4, 2), "from memory"),
    )


def kernel_bars(found: DeviceResult) -> str:
    """Share of the most expensive kernels, by their number in the table."""
    rows = found.kernels[:SHOWN]
    colours = [MARK if row.bound == "memory" else INT8 for row in rows]
    with mpl.rc_context({**STYLE, "svg.hashsalt": "kernels"}):
        figure, axes = canvas()
        places = range(1, len(rows) + 1)
        axes.bar(places, [100 * row.share for row in rows], width=0.8, color=colours)
        reached = [None if row.of_peak is None else 100 * row.of_peak for row in rows]
        if any(value is not None for value in reached):
            above = axes.twinx()
            heights = [np.nan if value is None else value for value in reached]
            above.plot(places, heights, "o", color=MUTED, markersize=4)
            above.set_ylim(0, 100)
            above.set_ylabel("Of the core's peak, % (dots)")
            above.spines["right"].set_visible(True)
        axes.set_xlim(0.3, len(rows) + 0.7)
        axes.set_xlabel("Kernel, by its number in the table")
        axes.set_ylabel("Share of the inference, %")
        axes.grid(True, axis="y")
        return svg(figure, "kernels", "Cost of the most expensive kernels")
