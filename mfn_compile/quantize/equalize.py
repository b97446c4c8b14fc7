"""Channel equalization: the same float function with channels of more equal range.

Channels that one per-tensor scale must serve are scaled towards each other, and the inverse goes
into the weights that read them. It is exact wherever only additions and positively homogeneous
functions (ReLU, PReLU) lie between writers and readers, thus on the residual stream of any
MobileFaceNet, where nothing non-linear lies at all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.quantize.graph import Graph, is_depthwise
from mfn_compile.quantize.onnxruntime_session import Floats, Judge

HOMOGENEOUS = frozenset({"Relu", "PRelu", "LeakyRelu"})
LIMIT = 16.0  # a channel is scaled by at most this factor either way
Doubles = NDArray[np.float64]


@dataclass(eq=False)
class Space:
    """Tensors that share a channel scale, and the convolutions on either side."""

    tensors: list[str] = field(default_factory=list)
    writers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)


def equalize(
    model: onnx.ModelProto, images: Floats, strength: float
) -> tuple[onnx.ModelProto, int]:
    """A copy of `model` with equalized channels, and how many spaces were equalized.

    Args:
        model: float ONNX network.
        images: preprocessed calibration images float32 [N, 3, H, W].
        strength: 0 leaves the activations as they are, 1 makes their channels' ranges equal.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    spaces = [s for s in _spaces(graph) if any(not is_depthwise(graph, r) for r in s.readers)]
    largest = channel_maxima(copy, [_observed(graph, s) for s in spaces], images)
    for space, maxima in zip(spaces, largest, strict=True):
        _apply(graph, space, _scales(graph, space, maxima, strength))
    return copy, len(spaces)


def channel_maxima(
    model: onnx.ModelProto, groups: list[list[str]], images: Floats
) -> list[Doubles]:
    """Largest magnitude a channel over images, positions and the tensors of each group."""
    names = list(dict.fromkeys(name for group in groups for name in group))
    if not names:
        return []
    exposed = with_outputs(model, names)
    judge = Judge(exposed.SerializeToString(), outputs=names, optimized=True)
    maxima: dict[str, Doubles] = {}
    for outputs in judge.batches(images):
        for name, value in zip(names, outputs, strict=True):
            here = np.abs(value).max(axis=(0, 2, 3)).astype(np.float64)
            maxima[name] = np.maximum(maxima[name], here) if name in maxima else here
    return [np.max([maxima[name] for name in group], axis=0) for group in groups]


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy of `model` that also returns the float tensors `names`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    for name in names:
        if name not in known:
            copy.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    return copy


def _spaces(graph: Graph) -> list[Space]:
    """Groups of tensors whose channels can be scaled freely, in execution order."""
    parent: dict[str, str] = {}
    frozen: set[str] = {v.name for v in (*graph.model.graph.input, *graph.model.graph.output)}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        tensors = [name for name in node.input if name and not graph.has(name)]
        if node.op_type == "Conv":
            continue
        linked = node.op_type in HOMOGENEOUS or (node.op_type == "Add" and len(tensors) == 2)
        for name in (*tensors, *node.output):
            if linked:
                parent[root(name)] = root(node.output[0])
            else:
                frozen.add(name)
    bad = {root(name) for name in frozen}
    spaces: dict[str, Space] = defaultdict(Space)
    for node in graph.nodes:
        for name in node.output:
            spaces[root(name)].tensors.append(name)
        if node.op_type == "Conv":
            spaces[root(node.output[0])].writers.append(node)
            spaces[root(node.input[0])].readers.append(node)
    return [s for key, s in spaces.items() if key not in bad and s.writers and s.readers]


def _observed(graph: Graph, space: Space) -> list[str]:
    """Tensors of the space that will be quantized: what convolutions and additions read."""
    return [
        name
        for name in space.tensors
        if any(node.op_type in ("Conv", "Add") for node in graph.consumers[name])
    ]


def _scales(graph: Graph, space: Space, maxima: Doubles, strength: float) -> Doubles:
    """Divisor a channel; geometric mean 1 over the channels that are alive."""
    alive = maxima > maxima.max() * 1e-4
    if not alive.any():
        return np.ones_like(maxima)
    centre = np.exp(np.log(maxima[alive]).mean())
    ratio = np.where(alive, maxima / centre, 1.0)
    return np.clip(ratio**strength, 1 / LIMIT, LIMIT)


def _apply(graph: Graph, space: Space, scales: Doubles) -> None:
    for node in space.writers:
        weight = graph.array(node.input[1])
        shape = (-1, *([1] * (weight.ndim - 1)))
        graph.store(node.input[1], (weight / scales.reshape(shape)).astype(weight.dtype))
        if len(node.input) > 2:
            bias = graph.array(node.input[2])
            graph.store(node.input[2], (bias / scales).astype(bias.dtype))
    for node in space.readers:
        weight = graph.array(node.input[1])
        shape = (-1, 1, 1, 1) if is_depthwise(graph, node) else (1, -1, 1, 1)
        graph.store(node.input[1], (weight * scales.reshape(shape)).astype(weight.dtype))
