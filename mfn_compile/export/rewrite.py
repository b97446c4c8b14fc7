"""Brings the end of a foreign ONNX graph into the form that our own export has.

Other programs end with Flatten, MatMul or Gemm, a BatchNorm over [N, D] and sometimes an L2 norm.
Ours ends with a convolution and Flatten. Quantizers and backends then meet one form only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

Array = NDArray[np.float64]

FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})
# What may stand between the norm and the division: F.normalize clamps and expands it.
NORM_PATH = frozenset({"Clip", "Expand", "Max", "Unsqueeze", "Identity"})


def drop_l2_norm(model: Any) -> bool:
    """Remove an L2 norm over the embedding at the end; true when there was one.

    Embeddings are compared by their cosine, which does not see it, and in INT8 it would cost.
    """
    graph = model.graph
    output = graph.output[0].name
    last = _producer(graph, output)
    if last is None or not _is_l2_norm(graph, last):
        return False
    inner = _producer(graph, last.input[0])
    if inner is None:
        return False
    source = last.input[0]
    graph.node.remove(last)
    for node in graph.node:
        node.input[:] = [output if name == source else name for name in node.input]
        node.output[:] = [output if name == source else name for name in node.output]
    _drop_dead(graph)
    return True


def linear_to_convolution(model: Any) -> None:
    """Replace Flatten, MatMul or Gemm, bias and BatchNorm at the end by Conv and Flatten."""
    graph = model.graph
    tail = _linear_tail(model)
    if tail is None:
        return
    name = tail.nodes[0].name or "linear"
    kernel = tail.weight.shape[2:]
    for suffix, values in (("weight", tail.weight), ("bias", tail.bias)):
        tensor = numpy_helper.from_array(values.astype(np.float32), f"{name}.{suffix}")
        graph.initializer.append(tensor)
    conv = helper.make_node(
        "Conv",
        [tail.source, f"{name}.weight", f"{name}.bias"],
        [f"{name}.map"],
        name=name,
        kernel_shape=list(kernel),
    )
    output = tail.nodes[-1].output[0]
    flatten = helper.make_node("Flatten", [f"{name}.map"], [output], f"{name}.flatten", axis=1)
    place = list(graph.node).index(tail.nodes[0])
    for node in tail.nodes:
        graph.node.remove(node)
    graph.node.insert(place, conv)
    graph.node.insert(place + 1, flatten)
    _drop_dead(graph)


@dataclass
class _Tail:
    """Nodes that compute y = weight * source + bias, weight [D, C, H, W], bias [D]."""

    nodes: list[Any]
    source: str
    weight: Array
    bias: Array


def _linear_tail(model: Any) -> _Tail | None:
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:
        weight = constants.get(node.input[1]) if len(node.input) > 1 else None
        before = _producer(graph, node.input[0]) if node.input else None
        if node.op_type not in ("MatMul", "Gemm") or weight is None or before is None:
            continue
        shape = _shape(model, before.input[0])
        matrix, bias = _linear(node, constants)
        if before.op_type not in FLATTENING or matrix.shape[1] != int(np.prod(shape)):
            continue
        tail = _Tail([node], before.input[0], matrix.reshape(len(matrix), *shape), bias)
        _absorb(graph, tail, constants)
        return tail
    return None


def _linear(node: Any, constants: dict[str, Any]) -> tuple[Array, Array]:
    """Matrix [D, K] and bias [D] of a MatMul or Gemm."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    matrix = _array(constants[node.input[1]])
    if not attributes.get("transB", 0):
        matrix = matrix.T
    bias = np.zeros(len(matrix))
    if node.op_type == "Gemm":
        matrix = matrix * attributes.get("alpha", 1.0)
        if len(node.input) > 2 and node.input[2] in constants:
            addend = _array(constants[node.input[2]]).reshape(-1)
            bias = np.broadcast_to(addend * attributes.get("beta", 1.0), bias.shape)
    return matrix, bias


def _absorb(graph: Any, tail: _Tail, constants: dict[str, Any]) -> None:
    """Take a bias Add and a BatchNorm that follow into the weight and bias."""
    while True:
        users = [n for n in graph.node if tail.nodes[-1].output[0] in n.input]
        if len(users) != 1:
            return
        node = users[0]
        if node.op_type == "Add":
            other = next((name for name in node.input if name in constants), None)
            if other is None:
                return
            tail.bias = tail.bias + _array(constants[other]).reshape(-1)
        elif node.op_type == "BatchNormalization":
            gamma, beta, mean, var = (_array(constants[name]) for name in node.input[1:5])
            eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            scale = gamma / np.sqrt(var + eps)
            tail.weight = tail.weight * scale[:, None, None, None]
            tail.bias = beta + (tail.bias - mean) * scale
        else:
            return
        tail.nodes.append(node)


def _is_l2_norm(graph: Any, node: Any) -> bool:
    if node.op_type == "LpNormalization":
        values = {a.name: a.i for a in node.attribute}
        return values.get("p", 2) == 2 and values.get("axis", -1) in (1, -1)
    if node.op_type != "Div":
        return False
    norm = _producer(graph, node.input[1])
    while norm is not None and norm.op_type in NORM_PATH:
        norm = _producer(graph, norm.input[0])
    return norm is not None and norm.op_type == "ReduceL2" and norm.input[0] == node.input[0]


def _producer(graph: Any, tensor: str) -> Any | None:
    return next((node for node in graph.node if tensor in node.output), None)


def _shape(model: Any, tensor: str) -> tuple[int, ...]:
    """[C, H, W] of a feature map, () where it is not known."""
    inferred = shape_inference.infer_shapes(model).graph
    for value in (*inferred.value_info, *inferred.input):
        if value.name == tensor and len(value.type.tensor_type.shape.dim) == 4:
            return tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim[1:])
    return ()


def _array(tensor: Any) -> Array:
    return np.asarray(numpy_helper.to_array(tensor), np.float64)


def _drop_dead(graph: Any) -> None:
    """Remove nodes and constants that nothing leads on from."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
