"""Where a quantized network loses: signal to quantization noise of every layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from mfn_compile.errors import InternalCheckError
from mfn_compile.quantize.equalize import with_outputs
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.onnxruntime_session import Floats, Judge
from mfn_compile.quantize.qdq import Layer, layers_of
from mfn_compile.results import LayerError

MAX_DB = 200.0  # what a layer without any error is said to have


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    other: float = 0.0

    def add(self, reference: Floats, value: Floats) -> None:
        a, b = reference.ravel().astype(np.float64), value.ravel().astype(np.float64)
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.dot += float(a @ b)
        self.noise += float(((a - b) ** 2).sum())

    def sqnr_db(self) -> float:
        if self.noise == 0:
            return MAX_DB
        return float(np.clip(10 * np.log10(max(self.signal, 1e-300) / self.noise), -MAX_DB, MAX_DB))

    def cosine(self) -> float:
        size = (self.signal * self.other) ** 0.5
        return self.dot / size if size > 0 else float(self.noise == 0)


def layer_errors(
    fp32: onnx.ModelProto, qdq: onnx.ModelProto, images: Floats
) -> tuple[LayerError, ...]:
    """Error of each layer's output with everything before it quantized too.

    Layers are paired by their order, so the two files may name tensors differently.

    Args:
        fp32: float network.
        qdq: the same network quantized.
        images: preprocessed float32 [N, 3, H, W]; a few are enough.

    Raises:
        InternalCheckError: the two files have different layers.
    """
    reference, quantized = layers_of(Graph(fp32)), layers_of(Graph(qdq))
    if [layer.op for layer in reference] != [layer.op for layer in quantized]:
        raise InternalCheckError(
            f"The quantized network has {len(quantized)} layers, the float one {len(reference)}"
        )
    sums = [_Sums() for _ in reference]
    left, right = _judge(fp32, reference), _judge(qdq, quantized)
    for expected, found in zip(left.batches(images), right.batches(images), strict=True):
        for total, a, b in zip(sums, expected, found, strict=True):
            total.add(a, b)
    return tuple(
        LayerError(
            name=layer.name,
            op=layer.op,
            precision="int8" if other.quantized else "float",
            sqnr_db=round(total.sqnr_db(), 2),
            cosine=total.cosine(),
        )
        for layer, other, total in zip(reference, quantized, sums, strict=True)
    )


def _judge(model: onnx.ModelProto, layers: tuple[Layer, ...]) -> Judge:
    names = [layer.output for layer in layers]
    return Judge(with_outputs(model, names).SerializeToString(), outputs=names)
