"""What a QDQ ONNX file quantizes, and whether every quantizer in it is sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.quantize.graph import Graph, attribute

DEQUANTIZE, QUANTIZE = "DequantizeLinear", "QuantizeLinear"


@dataclass(frozen=True, eq=False)
class Quantizer:
    """One scale and zero point.

    `tensor` is the float tensor that is quantized (activations) or the integer initializer
    (weights); `axis` is None where one scale serves the whole tensor.
    """

    node: str
    tensor: str
    weights: bool
    scale_name: str
    zero_point_name: str
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int | None


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product."""

    name: str
    op: str
    output: str
    quantized: bool


@dataclass(frozen=True)
class QdqSummary:
    """Layers and quantizers of a QDQ file, in execution order."""

    layers: tuple[Layer, ...]
    quantizers: tuple[Quantizer, ...]

    @property
    def quantized_layers(self) -> int:
        """Layers whose input and weights are both integers."""
        return sum(layer.quantized for layer in self.layers)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that compute in float."""
        return tuple(layer.name for layer in self.layers if not layer.quantized)

    @property
    def per_channel_activations(self) -> int:
        """Activation quantizers with one scale a channel."""
        return sum(not q.weights and q.axis is not None for q in self.quantizers)


def load_model(source: Path | bytes) -> onnx.ModelProto:
    """The ONNX file of a path or of its bytes."""
    if isinstance(source, Path):
        return onnx.load(source)
    return onnx.load_model_from_string(source)


def summarize(source: Path | bytes | onnx.ModelProto) -> QdqSummary:
    """Read layers and quantizers of a QDQ file."""
    model = source if isinstance(source, onnx.ModelProto) else load_model(source)
    graph = Graph(model)
    return QdqSummary(layers_of(graph), tuple(_quantizers(graph)))


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """Layers of a QDQ or float network, in execution order."""
    return tuple(
        Layer(node.name, node.op_type, node.output[0], _is_quantized(graph, node))
        for node in graph.layers()
    )


def check_sound(summary: QdqSummary) -> None:
    """Refuse quantizers that no integer kernel could run.

    Raises:
        InternalCheckError: names the first quantizer with a scale that is not positive and
            finite, mismatched shapes, a zero point on weights, or an unexpected integer type.
    """
    for quantizer in summary.quantizers:
        problem = _problem(quantizer)
        if problem:
            raise InternalCheckError(
                f"A quantizer is not sound: {problem}",
                where=quantizer.tensor,
                hint="Try another recipe; if the default one does this, report it as a bug",
            )


def _problem(quantizer: Quantizer) -> str:
    scale, zero = quantizer.scale, quantizer.zero_point
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        return "its scale is not positive and finite"
    if scale.shape != zero.shape:
        return f"{scale.shape} scales and {zero.shape} zero points"
    if zero.dtype not in (np.int8, np.uint8):
        return f"its integer type is {zero.dtype}"
    if quantizer.weights and (zero.dtype != np.int8 or np.any(zero != 0)):
        return "its weights are not symmetric int8"
    return ""


def _is_quantized(graph: Graph, node: Any) -> bool:
    sources = [graph.producer.get(name) for name in node.input[:2]]
    return all(source is not None and source.op_type == DEQUANTIZE for source in sources)


def _quantizers(graph: Graph) -> list[Quantizer]:
    found = []
    for node in graph.nodes:
        if node.op_type != DEQUANTIZE:
            continue
        weights = graph.has(node.input[0])
        source = node if weights else graph.producer[node.input[0]]
        scale = graph.array(node.input[1])
        axis = int(attribute(node, "axis", 1)) if scale.ndim else None
        found.append(
            Quantizer(
                node.name,
                source.input[0],
                weights,
                node.input[1],
                node.input[2],
                scale,
                graph.array(node.input[2]),
                axis,
            )
        )
    return found
