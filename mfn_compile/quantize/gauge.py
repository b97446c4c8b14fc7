"""Gauge: moving a scale without touching an integer, by rescaling whole channels.

ReLU and PReLU are positively homogeneous, f(c x) = c f(x) for c > 0. A convolution whose row k and
bias k are multiplied by c_k therefore gives f a channel that is c_k times as large, and a reader
whose weights are divided by c_k undoes it:

    w_k -> c_k w_k,  b_k -> c_k b_k,  s_k -> c_k s_k,  w'_k -> w'_k / c_k

Weight scales take the factors, so every integer of the file stays, and with c_k = 2^j / s_k the
scale of the tensor between the two becomes the power of two 2^j, at no loss at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.quantize.graph import Graph, is_depthwise
from mfn_compile.quantize.ranges import forget_types

HOMOGENEOUS = frozenset({"Relu", "PRelu"})
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Site:
    """A quantizer right behind a homogeneous activation, with the convolutions on either side."""

    quantizer: Any
    writer: Any
    readers: tuple[Any, ...]


def gauged(qdq: onnx.ModelProto, fp32: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Copies of both networks with the gauge of `qdq`, computing what they computed.

    Raises:
        InternalCheckError: the two networks have different layers.
    """
    copies = onnx.ModelProto(), onnx.ModelProto()
    for copy, model in zip(copies, (qdq, fp32), strict=True):
        copy.CopyFrom(model)
        _own_initializers(copy)
        _complete_layers(copy)
    _gauge(Graph(copies[0]), Graph(copies[1]))
    return copies


def _gauge(qdq: Graph, fp32: Graph) -> None:
    """Give every scale behind a ReLU or PReLU a power of two where `sites` finds the way free.

    Both graphs are changed in place, by the same factors: `fp32` stays the float network that
    `qdq` stands for, tensor by tensor, and computes the same embeddings as before.

    Raises:
        InternalCheckError: the two graphs have different layers.
    """
    twin = paired_layers(qdq, fp32)
    for site in sites(qdq):
        name = site.quantizer.input[1]
        scale = qdq.array(name).astype(np.float64)
        power = nearest_power(scale)
        factor = power / scale
        _store_scale(qdq, site.quantizer, power)
        _multiply_writer(qdq, site.writer, factor)
        _multiply_writer(fp32, twin[site.writer.output[0]], factor)
        for reader in site.readers:
            _divide_reader(qdq, reader, factor)
            _divide_reader(fp32, twin[reader.output[0]], factor)


def nearest_power(scale: Doubles) -> Doubles:
    """The power of two that is nearest in ratio."""
    return np.asarray(np.ldexp(1.0, np.rint(np.log2(scale)).astype(int)), np.float64)


def sites(graph: Graph) -> list[Site]:
    """Quantizers that can be gauged, in execution order.

    Convolution, activation if any, and quantizer must follow each other without a branch, and
    whatever reads the quantized tensor must be a convolution. One that sums over channels can undo
    only a factor that all channels share.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear":
            continue
        between, writer = [node.input[0]], graph.producer.get(node.input[0])
        if writer is not None and writer.op_type in HOMOGENEOUS:
            between.append(writer.input[0])
            writer = graph.producer.get(writer.input[0])
        if writer is None or writer.op_type != "Conv":
            continue
        if any(len(graph.consumers[name]) > 1 for name in between):
            continue
        values = [d.output[0] for d in graph.consumers[node.output[0]]]
        readers = [reader for value in values for reader in graph.consumers[value]]
        shared = graph.array(node.input[1]).ndim == 0
        if readers and all(_can_undo(graph, reader, shared) for reader in readers):
            found.append(Site(node, writer, tuple(readers)))
    return found


def paired_layers(qdq: Graph, fp32: Graph) -> dict[str, Any]:
    """Layer of `fp32` for the output name of each layer of `qdq`, paired by their order.

    Raises:
        InternalCheckError: the two graphs have different layers.
    """
    left, right = qdq.layers(), fp32.layers()
    if [node.op_type for node in left] != [node.op_type for node in right]:
        raise InternalCheckError(
            f"The quantized network has {len(left)} layers, the float one {len(right)}"
        )
    return {node.output[0]: other for node, other in zip(left, right, strict=True)}


def _own_initializers(model: onnx.ModelProto) -> None:
    """Give weights, biases and scales that several layers share a copy for each.

    Simplifiers merge equal constants; changing one quantizer's scale would then change another's.
    """
    uses: dict[str, list[tuple[Any, int]]] = {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in tensors and node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear"):
                uses.setdefault(name, []).append((node, place))
    for name, readers in uses.items():
        for node, place in readers[1:]:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensors[name])
            copy.name = f"{name}/{node.output[0]}/{place}"
            model.graph.initializer.append(copy)
            node.input[place] = copy.name


def _complete_layers(model: onnx.ModelProto) -> None:
    """Give every convolution a bias, and quantized weights a scale for each output channel."""
    graph = Graph(model)
    for node in graph.layers():
        name = graph.weight(node)
        if node.op_type != "Conv" or name is None:
            continue
        rows = len(graph.array(name))
        if len(node.input) < 3:
            bias = onnx.numpy_helper.from_array(np.zeros(rows, np.float32), f"{node.output[0]}/2")
            model.graph.initializer.append(bias)
            node.input.append(bias.name)
        source = graph.producer.get(node.input[1])
        if source is None or graph.array(source.input[1]).ndim:
            continue
        for place in (1, 2):
            one = graph.array(source.input[place])
            many = onnx.numpy_helper.from_array(np.full(rows, one), f"{source.output[0]}/{place}")
            model.graph.initializer.append(many)
            source.input[place] = many.name
        source.attribute.append(onnx.helper.make_attribute("axis", 0))
        forget_types(model)


def _can_undo(graph: Graph, reader: Any, shared: bool) -> bool:
    return reader.op_type == "Conv" and (shared or is_depthwise(graph, reader))


def _store_scale(graph: Graph, quantizer: Any, scale: Doubles) -> None:
    for node in (quantizer, *graph.consumers[quantizer.output[0]]):
        graph.store(node.input[1], scale.astype(np.float32))


def _multiply_writer(graph: Graph, conv: Any, factor: Doubles) -> None:
    _scale_weights(graph, conv, factor)
    if len(conv.input) > 2:
        bias = graph.array(conv.input[2])
        graph.store(conv.input[2], (bias * factor).astype(bias.dtype))


def _divide_reader(graph: Graph, conv: Any, factor: Doubles) -> None:
    _scale_weights(graph, conv, 1 / factor)


def _scale_weights(graph: Graph, conv: Any, factor: Doubles) -> None:
    """Multiply every output channel's weights; of quantized ones only the scale moves.

    A depthwise reader's input channels are its output channels, and a dense one has one factor.
    """
    name = conv.input[1]
    if not graph.has(name):
        name = graph.producer[name].input[1]
        value = graph.array(name)
        graph.store(name, (value * factor).astype(value.dtype))
        return
    weight = graph.array(name)
    shape = (-1, *([1] * (weight.ndim - 1))) if factor.ndim else ()
    graph.store(name, (weight * factor.reshape(shape)).astype(weight.dtype))
