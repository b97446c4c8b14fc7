"""Small helpers over an ONNX graph: initializers by name, producers, consumers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LAYER_OPS = frozenset({"Conv", "Gemm", "MatMul"})


class Graph:
    """A view of `model` that reads and writes its initializers as arrays."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[Any] = list(model.graph.node)
        self.producer = {out: node for node in self.nodes for out in node.output}
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}

    def has(self, name: str) -> bool:
        """Whether `name` is an initializer."""
        return name in self._initializers

    def array(self, name: str) -> NDArray[Any]:
        """A copy of an initializer."""
        return np.array(numpy_helper.to_array(self._initializers[name]))

    def store(self, name: str, value: NDArray[Any]) -> None:
        """Replace an initializer's content, keeping its name and place."""
        self._initializers[name].CopyFrom(numpy_helper.from_array(value, name))

    def layers(self) -> list[Any]:
        """Nodes with weights (convolutions and matrix products) in execution order."""
        return [n for n in self.nodes if n.op_type in LAYER_OPS and self.weight(n) is not None]

    def weight(self, node: Any) -> str | None:
        """Initializer that holds the weights of `node`, float or quantized."""
        name = node.input[1]
        while not self.has(name):
            source = self.producer.get(name)
            if source is None or source.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                return None
            name = source.input[0]
        return str(name)


def attribute(node: Any, name: str, default: Any) -> Any:
    """Value of an attribute of `node`."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def is_depthwise(graph: Graph, node: Any) -> bool:
    """Whether `node` is a convolution that never sums over channels."""
    if node.op_type != "Conv":
        return False
    groups = int(attribute(node, "group", 1))
    return groups > 1 and graph.array(graph.weight(node) or "").shape[1] == 1
