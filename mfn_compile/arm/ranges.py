"""Which int8 values every channel of every tensor can take, whatever the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.graph import (
    Add,
    Conv,
    Input,
    IntegerGraph,
    Lookup,
    Node,
    Requantize,
    Residual,
)

Int64 = NDArray[np.int64]


class Range(NamedTuple):
    """Smallest and largest value of every channel, int64 [C]; both can be reached or not."""

    low: Int64
    high: Int64

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Channels of one value, [C]."""
        return np.equal(self.low, self.high)


def ranges_of(graph: IntegerGraph) -> dict[str, Range]:
    """The range of every int8 tensor by name; bounds are safe, not always tight."""
    found: dict[str, Range] = {}
    for node in graph.nodes:
        tensor = graph.tensors[node.output]
        if tensor.dtype == "int8":
            found[node.output] = _range(node, found) or _full(tensor.channels)
    return found


def _range(node: Node, known: Mapping[str, Range]) -> Range | None:
    """The range of a node's int8 result; None where nothing is known."""
    match node:
        case Input():
            return Range(
                *(np.asarray(end(node.table, axis=1), np.int64) for end in (np.min, np.max))
            )
        case Conv(output_stage=Requantize() as stage):
            result = _finished(_accumulated(node, known[node.input]), stage)
            if node.residual is None or node.residual_input is None:
                return result
            return _added(node.residual, result, known[node.residual_input])
        case Add():
            return _added(node.residual, known[node.a], known[node.b])
        case Lookup():
            return _looked_up(node, known[node.input])
    return None


def _full(channels: int) -> Range:
    return Range(np.full(channels, -128, np.int64), np.full(channels, 127, np.int64))


def _accumulated(node: Conv, values: Range) -> Range:
    """bias + sum of weight times value, each term at its smallest or its largest."""
    low, high = values
    if any(node.padding):
        low, high = np.minimum(low, node.pad_value), np.maximum(high, node.pad_value)
    weight = node.weight.astype(np.int64)
    taps = (0, 1) if node.depthwise else (1, 2)
    up, down = np.maximum(weight, 0).sum(taps), np.minimum(weight, 0).sum(taps)
    smallest, largest = up * low + down * high, up * high + down * low
    if not node.depthwise:
        smallest, largest = smallest.sum(1), largest.sum(1)
    return Range(node.bias + smallest, node.bias + largest)


def _finished(total: Range, stage: Requantize) -> Range:
    """int8 results; on either side of 0 they only rise, or only fall, with the accumulator."""
    around = [np.clip(value, *total) for value in (-1, 0)]
    ends: NDArray[Any] = oracle.finish(np.stack([*total, *around]).astype(np.int32), stage)
    return Range(ends.min(0).astype(np.int64), ends.max(0).astype(np.int64))


def _added(residual: Residual, a: Range, b: Range) -> Range:
    terms = [
        np.sort(np.stack(values) * scale.astype(np.int64), 0)
        for values, scale in ((a, residual.scale_a), (b, residual.scale_b))
    ]
    low, high = terms[0] + terms[1] + residual.offset
    return _finished(Range(low, high), residual.output)


def _looked_up(node: Lookup, values: Range) -> Range:
    codes = np.arange(-128, 128)
    inside = (codes >= values.low[:, None]) & (codes <= values.high[:, None])
    table = node.table.astype(np.int64)
    return Range(np.where(inside, table, 127).min(1), np.where(inside, table, -128).max(1))
