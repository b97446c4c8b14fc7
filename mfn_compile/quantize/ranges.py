"""Our own activation ranges (least squared error), written into a QDQ file."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.quantize.equalize import with_outputs
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.mse import (
    BINS,
    Grid,
    Histogram,
    best_affine,
    best_symmetric,
)
from mfn_compile.quantize.onnxruntime_session import Floats, Judge
from mfn_compile.quantize.qdq import Quantizer, summarize


def search_activation_ranges(
    qdq: onnx.ModelProto, fp32: onnx.ModelProto, images: Floats, *, affine: bool
) -> None:
    """Set every per-tensor activation quantizer of `qdq` to the range with least squared error.

    Per-channel quantizers stay: 8 bits for one channel leave nothing to gain by clipping.

    Args:
        qdq: changed in place.
        fp32: the same network in float, with the same tensor names.
        images: preprocessed calibration images float32 [N, 3, H, W].
        affine: choose zero points too, and store uint8; otherwise keep each integer type.
    """
    chosen = [q for q in summarize(qdq).quantizers if not q.weights and q.axis is None]
    names = list(dict.fromkeys(q.tensor for q in chosen))
    graph = Graph(qdq)
    histograms = collect_histograms(fp32, names, images)
    for quantizer in chosen:
        histogram = histograms[quantizer.tensor]
        if histogram.high <= histogram.low:
            continue
        _store(graph, quantizer, _grid(quantizer, histogram, affine))
    forget_types(qdq)


def forget_types(model: onnx.ModelProto) -> None:
    """Drop the recorded types of inner tensors; a changed zero point may have made them wrong."""
    del model.graph.value_info[:]


def collect_histograms(
    fp32: onnx.ModelProto, names: list[str], images: Floats
) -> dict[str, Histogram]:
    """Histogram of each float tensor over all images; two passes, first for the limits."""
    entry = fp32.graph.input[0].name
    inner = [name for name in names if name != entry]
    judge = Judge(with_outputs(fp32, inner).SerializeToString(), outputs=inner, optimized=True)
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    for start in range(0, len(images), judge.batch):
        for name, value in _tensors(judge, inner, entry, images[start : start + judge.batch]):
            if name in low:
                low[name] = min(low[name], float(value.min()))
                high[name] = max(high[name], float(value.max()))
    counts = {name: np.zeros(BINS) for name in names}
    for start in range(0, len(images), judge.batch):
        for name, value in _tensors(judge, inner, entry, images[start : start + judge.batch]):
            if name in counts and high[name] > low[name]:
                counts[name] += _count(value, low[name], high[name])
    return {name: Histogram(low[name], high[name], counts[name]) for name in names}


def _tensors(judge: Judge, inner: list[str], entry: str, batch: Floats) -> list[tuple[str, Floats]]:
    found = list(zip(inner, judge.run(batch), strict=True)) if inner else []
    return [(entry, batch), *found]


def _count(value: Floats, low: float, high: float) -> NDArray[np.int64]:
    """Counts a bin; faster than np.histogram, which searches edges."""
    index = ((value.ravel() - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
    return np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)


def _grid(quantizer: Quantizer, histogram: Histogram, affine: bool) -> Grid:
    signed = quantizer.zero_point.dtype == np.int8
    if affine and histogram.low < 0:
        return best_affine(histogram)
    return best_symmetric(histogram, signed=signed and histogram.low < 0)


def _store(graph: Graph, quantizer: Quantizer, grid: Grid) -> None:
    kind = np.int8 if grid.lowest < 0 else np.uint8
    graph.store(quantizer.scale_name, np.array(grid.scale, np.float32))
    graph.store(quantizer.zero_point_name, np.array(grid.zero_point, kind))
