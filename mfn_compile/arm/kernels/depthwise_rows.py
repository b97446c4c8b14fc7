"""Output rows of the depthwise kernel on AArch64: by products of bytes, or by `sdot`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.script import tirx as T

from mfn_compile.arm.kernels.registers import Sums, to_bytes, to_floats
from mfn_compile.arm.kernels.vectors import dot, half, load, products, zipped

if TYPE_CHECKING:
    from mfn_compile.arm.kernels.depthwise import Depthwise

LANES = 16


def quads_row(
    kernel: Depthwise,
    buffers: dict[str, Any],
    source: Any,
    y: Any,
    source_row: Callable[[int], Any],
) -> None:
    """One output row, `kernel.quads` columns at a time: every input column is rearranged once so
    that the window's rows of a channel are neighbours, and `sdot` adds four of them up.
    """
    count, stride = kernel.quads, kernel.stride[1]
    with (
        T.serial(0, kernel.epilogue.channels // LANES) as block,
        T.serial(0, kernel.output[1] // count) as group,
    ):
        channel, width = block * LANES, kernel.kernel[1]
        weights = [
            [load(buffers["weights"], [block, kx, q, 0], LANES) for q in range(4)]
            for kx in range(width)
        ]
        found: dict[int, list[Any]] = {}
        for at in range(count):
            first = at * stride
            totals: list[Any] = [load(buffers["bias"], [channel + 4 * q], 4) for q in range(4)]
            for kx in range(width):
                if first + kx not in found:
                    column = group * (count * stride) + first + kx
                    rows = [
                        load(source, [source_row(ky), column, channel], LANES)
                        for ky in range(kernel.kernel[0])
                    ]
                    found[first + kx] = _bound(_quads(rows))
                quads = found[first + kx]
                totals = [dot(t, q, w) for t, q, w in zip(totals, quads, weights[kx], strict=True)]
            _store(kernel, buffers, totals, y, group * count + at, channel)


def _quads(rows: Sequence[Any]) -> list[Any]:
    """Bytes of three or four rows, 16 channels: four int8x16 of four channels, rows neighbours."""
    wide = [T.reinterpret("int16x8", part) for part in zipped(rows[0], rows[1])]
    rest = [T.reinterpret("int16x8", part) for part in zipped(rows[2], rows[-1])]
    pairs = [zipped(a, b) for a, b in zip(wide, rest, strict=True)]
    return [T.reinterpret("int8x16", part) for pair in pairs for part in pair]


def _bound(values: Sequence[Any]) -> list[Any]:
    """The values under names, so that an expression that reads them twice computes them once."""
    return [T.bind(value) for value in values]


def products_row(
    kernel: Depthwise,
    buffers: dict[str, Any],
    source: Any,
    y: Any,
    source_row: Callable[[int], Any],
) -> None:
    """One output row on AArch64: products of int8, summed in 16 bits by groups, then in 32."""
    taps = [(ky, kx) for ky in range(kernel.kernel[0]) for kx in range(kernel.kernel[1])]
    starts = np.cumsum((0, *kernel.groups))
    with (
        T.serial(0, kernel.epilogue.channels // LANES) as block,
        T.serial(0, kernel.output[1]) as column,
    ):
        channel = block * LANES
        totals: list[Any] = [load(buffers["bias"], [channel + 4 * q], 4) for q in range(4)]
        for start, length in zip(starts, kernel.groups, strict=False):
            group = taps[start : start + length]
            for upper in (False, True):
                part = _group_sum(
                    kernel, buffers, source, source_row, group, column, channel, upper
                )
                for q in (0, 1):
                    at = 2 * upper + q
                    totals[at] = totals[at] + half(part, q == 1).astype("int32x4")
        _store(kernel, buffers, totals, y, column, channel)


def _group_sum(
    kernel: Depthwise,
    buffers: dict[str, Any],
    source: Any,
    source_row: Callable[[int], Any],
    group: list[tuple[int, int]],
    column: Any,
    channel: Any,
    upper: bool,
) -> Any:
    """int16x8: products of some taps for half of the channels."""
    found = None
    for ky, kx in group:
        place = [source_row(ky), column * kernel.stride[1] + kx, channel]
        values = half(load(source, place, LANES), upper)
        weights = half(load(buffers["weights"], [ky, kx, channel], LANES), upper)
        product = products(values, weights)
        found = product if found is None else found + product
    return found


def _store(
    kernel: Depthwise, buffers: dict[str, Any], totals: list[Any], y: Any, column: Any, channel: Any
) -> None:
    """The results of 16 channels."""
    shape, out = kernel.epilogue, buffers["out"]
    sums = [Sums(total, channel + 4 * q, biased=True) for q, total in enumerate(totals)]
    if shape.to_float:
        for q, each in enumerate(sums):
            at = T.ramp(channel + 4 * q, 1, 4)
            T.buffer_store(out, to_floats(shape, buffers, each), [y, column, at])
        return
    skip = load(buffers["skip"], [y, column, channel], LANES) if shape.residual else None
    value = to_bytes(shape, buffers, sums, skip)
    T.buffer_store(out, value, [y, column, T.ramp(channel, 1, LANES)])
