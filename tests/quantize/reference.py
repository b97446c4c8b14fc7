"""A QDQ network in float32 NumPy, summed in an order of its own: tap by tap, backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.quantize.graph import Graph, attribute
from mfn_compile.quantize.onnxruntime_session import Judge

Tensors = dict[str, NDArray[Any]]


def integers_of_onnxruntime(model: onnx.ModelProto, images: NDArray[np.float32]) -> list[Tensors]:
    """Every quantized tensor and the embedding, batch by batch, as ONNX Runtime has them."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    typed = {
        value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    names = [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    exposed.graph.output.extend(typed[name] for name in names)
    names.append(model.graph.output[0].name)
    judge = Judge(exposed.SerializeToString(), outputs=names)
    return [dict(zip(names, found, strict=True)) for found in judge.batches(images)]


def integers_of_numpy(model: onnx.ModelProto, images: NDArray[np.float32]) -> Tensors:
    """The same tensors of one batch, computed here."""
    graph = Graph(model)
    values: Tensors = {model.graph.input[0].name: images}
    for node in graph.nodes:
        inputs = [
            values[name] if name in values else graph.array(name) for name in node.input if name
        ]
        values[node.output[0]] = _run(node, inputs)
    kept = {n.output[0] for n in graph.nodes if n.op_type == "QuantizeLinear"}
    return {k: v for k, v in values.items() if k in kept or k == model.graph.output[0].name}


def differences(model: onnx.ModelProto, images: NDArray[np.float32]) -> int:
    """How many integers of all images ONNX Runtime and NumPy disagree about."""
    theirs = integers_of_onnxruntime(model, images)
    size = len(images) // len(theirs)
    total = 0
    for place, found in enumerate(theirs):
        ours = integers_of_numpy(model, images[place * size : (place + 1) * size])
        assert ours.keys() == found.keys()
        total += sum(int((ours[name] != found[name]).sum()) for name in ours)
    return total


def _run(node: Any, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    if node.op_type == "Constant":
        return np.array(onnx.numpy_helper.to_array(attribute(node, "value", None)))
    x = inputs[0]
    match node.op_type:
        case "QuantizeLinear":
            scale, zero = _along(node, x, inputs[1]), _along(node, x, inputs[2])
            limits = np.iinfo(zero.dtype)
            levels = np.rint(x / scale) + zero.astype(np.float32)
            return np.clip(levels, limits.min, limits.max).astype(zero.dtype)
        case "DequantizeLinear":
            scale, zero = _along(node, x, inputs[1]), _along(node, x, inputs[2])
            return (x.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale
        case "Conv":
            return _convolve(node, x, inputs[1], inputs[2])
        case "Relu":
            return np.maximum(x, np.float32(0))
        case "Clip":
            return np.clip(x, inputs[1], inputs[2])
        case "PRelu":
            return np.where(x < 0, x * inputs[1], x)
        case "Add":
            return x + inputs[1]
        case "Flatten":
            return x.reshape(len(x), -1)
    raise AssertionError(node.op_type)


def _along(node: Any, x: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    if not values.ndim:
        return values
    shape = [1] * x.ndim
    shape[attribute(node, "axis", 1)] = -1
    return values.reshape(shape)


def _convolve(
    node: Any, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
) -> NDArray[np.float32]:
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    stride = attribute(node, "strides", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    high = (x.shape[2] - weight.shape[2]) // stride[0] + 1
    wide = (x.shape[3] - weight.shape[3]) // stride[1] + 1
    total = np.zeros((len(x), len(weight), high, wide), np.float32)
    for i, j in reversed(list(np.ndindex(*weight.shape[2:]))):
        seen = x[:, :, i :: stride[0], j :: stride[1]][:, :, :high, :wide]
        if attribute(node, "group", 1) > 1:
            total += seen * weight[:, 0, i, j][:, None, None]
        else:
            flat = seen[:, ::-1].reshape(len(x), x.shape[1], -1)
            total += (weight[:, ::-1, i, j] @ flat).reshape(total.shape)
    return total + bias[:, None, None]
