"""Reads the integer graph from a QDQ ONNX file of the MobileFaceNet family, whoever wrote it.

One walk over the nodes in order: the table in `patterns.py` says what each node's output is;
quantizers and float layers make graph nodes of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from mfn_compile.arm import proto
from mfn_compile.arm.builder import Builder
from mfn_compile.arm.fusion import fuse_residuals
from mfn_compile.arm.graph import Conv, Float32, Input, IntegerGraph, Node, inputs_of
from mfn_compile.arm.patterns import OPERATORS, Walk, find_rule
from mfn_compile.arm.values import REALS, Constant, Image, Value
from mfn_compile.errors import BadInputError
from mfn_compile.model.preprocessing import Preprocessing


def read_graph(source: Path | onnx.ModelProto, preprocessing: Preprocessing) -> IntegerGraph:
    """The integer graph of a QDQ file, residual additions fused.

    Args:
        source: path of the file, or the parsed model.
        preprocessing: from a uint8 RGB crop to the network's float input; it becomes a table.

    Raises:
        BadInputError: names the node, its op, and why it cannot be represented.
    """
    return fuse_residuals(read_unfused(source, preprocessing))


def read_unfused(source: Path | onnx.ModelProto, preprocessing: Preprocessing) -> IntegerGraph:
    """As `read_graph`, but every quantizer of the file keeps its tensor."""
    opened = proto.open_source(source, OPERATORS)
    name, extent = proto.read_image(opened, preprocessing)
    known: dict[str, Value] = {
        t.name: Constant(proto.tensor_array(opened, t)) for t in opened.model.graph.initializer
    }
    known[name] = Image(extent, _pixels(preprocessing))
    channels = (0, 1, 2) if preprocessing.color == "RGB" else (2, 1, 0)
    walk = Walk(opened, Builder(opened.name, channels), known)
    for node in opened.model.graph.node:
        values = [known.get(n) if n else None for n in node.input]
        known[node.output[0]] = find_rule(walk, node, values)(walk, node, values)
    return _finish(walk, preprocessing)


def _pixels(preprocessing: Preprocessing) -> Float32:
    """The normalized value of every pixel value, float32 [3, 256], channels as the network's."""
    pixels = np.arange(256, dtype=np.uint8)[None, :]
    mean = np.asarray(preprocessing.mean, np.float32)[:, None]
    std = np.asarray(preprocessing.std, np.float32)[:, None]
    return np.asarray((pixels - mean) / std, np.float32)


def _finish(walk: Walk, preprocessing: Preprocessing) -> IntegerGraph:
    output = walk.source.model.graph.output[0].name
    value = walk.known.get(output)
    if not isinstance(value, REALS) or not value.extent.point:
        raise BadInputError(
            "the output of the ONNX model is no embedding",
            where=f"{walk.source.name}: {output}",
            why="It must be float, one vector an image",
            hint="export the network up to its embedding",
        )
    tensor = walk.builder.materialize(value, output).tensor
    nodes = _live(walk.builder.nodes, tensor)
    if sum(isinstance(node, Input) for node in nodes) != 1:
        raise BadInputError(
            "the image is quantized in more than one way",
            where=walk.source.name,
            hint="give the network's input one quantizer",
        )
    if not any(isinstance(node, Conv) for node in nodes):
        raise BadInputError(
            "No layer of the ONNX model computes in integers",
            where=walk.source.name,
            why="A layer does where its input and its weights are both quantized",
            hint="Quantize the activations too; `mfn-compile quantize` does",
        )
    tensors = {node.output: walk.builder.tensors[node.output] for node in nodes}
    return IntegerGraph(preprocessing.height, preprocessing.width, nodes, tensors, tensor)


def _live(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on, in their order."""
    wanted, live = {output}, []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(inputs_of(node))
            live.append(node)
    return tuple(reversed(live))
