"""Leaves out channels that no image can change, where that makes layers smaller; same embeddings.

Readers get what such a channel adds to their sums in the bias. docs/arm.md has the proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.calls import padded
from mfn_compile.arm.graph import (
    Conv,
    FloatConv,
    IntegerGraph,
    Node,
    Requantize,
    inputs_of,
)
from mfn_compile.arm.ranges import Range, ranges_of

Bool = NDArray[np.bool_]


def without_constant_channels(graph: IntegerGraph) -> IntegerGraph:
    """The graph with the same embeddings; the same object where nothing can be left out.

    Nodes, their names and their order stay. Tensors that are left have fewer channels, which have
    the same values as before.
    """
    while kept := _kept(graph, ranges_of(graph)):
        graph = _smaller(graph, kept)
    return graph


def multiply_adds(graph: IntegerGraph) -> int:
    """Of all convolutions for one image, padding of channels left out."""
    layers = [node for node in graph.nodes if isinstance(node, Conv | FloatConv)]
    sizes = [(graph.tensors[node.output], node.weight.size) for node in layers]
    return sum(tensor.height * tensor.width * weights for tensor, weights in sizes)


def channels_of(graph: IntegerGraph) -> int:
    """Channels of all tensors."""
    return sum(tensor.channels for tensor in graph.tensors.values())


def _kept(graph: IntegerGraph, ranges: Mapping[str, Range]) -> dict[str, tuple[Bool, Range]]:
    """Tensors that lose channels: the channels [C] that stay, and the tensor's range.

    A depthwise layer has the channels of its input: both tensors lose the same ones.
    """
    roots: dict[str, str] = {}
    spare: dict[str, Bool] = {}
    for node in graph.nodes:
        tied = isinstance(node, Conv) and node.depthwise
        roots[node.output] = roots[inputs_of(node)[0]] if tied else node.output
        free = _can_lose_outputs(node) and node.output != graph.output
        own = np.full(graph.tensors[node.output].channels, free)
        root = roots[node.output]
        spare[root] = spare.get(root, own) & own
        for name in inputs_of(node):
            spare[roots[name]] &= _unread(node, name, ranges.get(name))
    kept = {root: ~_worth(mask) for root, mask in spare.items()}
    return {
        name: (kept[root], ranges[name]) for name, root in roots.items() if not kept[root].all()
    }


def _can_lose_outputs(node: Node) -> bool:
    """Its result's channels can go without anything else that they are added to."""
    if not isinstance(node, Conv) or node.residual is not None:
        return False
    return isinstance(node.output_stage, Requantize)


def _unread(node: Node, name: str, values: Range | None) -> Bool | np.bool_:
    """Channels of the tensor `name` whose values `node` need not read."""
    if not isinstance(node, Conv) or name == node.residual_input or values is None:
        return np.False_
    if node.depthwise:  # its own result decides
        return np.True_
    same = values.constant
    if any(node.padding):
        same = same & (values.low == node.pad_value)
    return np.asarray(same | ~node.weight.any((0, 1, 2)))


def _worth(spare: Bool) -> Bool:
    """The channels that can go; none where memory would hold as many vectors without them."""
    if spare.all():
        spare = spare & (np.arange(spare.size) > 0)
    left = spare.size - int(spare.sum())
    return spare if padded(left) < padded(spare.size) else np.zeros_like(spare)


def _smaller(graph: IntegerGraph, kept: Mapping[str, tuple[Bool, Range]]) -> IntegerGraph:
    nodes = []
    for node in graph.nodes:
        if isinstance(node, Conv):
            if node.input in kept and not node.depthwise:
                node = _without_inputs(node, *kept[node.input])
            if node.output in kept:
                node = _without_outputs(node, kept[node.output][0])
        nodes.append(node)
    tensors = {
        name: replace(tensor, channels=int(kept[name][0].sum())) if name in kept else tensor
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _without_inputs(node: Conv, keep: Bool, values: Range) -> Conv:
    """A dense convolution of fewer channels; the others' products are in the bias."""
    lost = node.weight[..., ~keep].astype(np.int64).sum((1, 2)) @ values.low[~keep]
    return replace(
        node,
        weight=np.ascontiguousarray(node.weight[..., keep]),
        bias=(node.bias + lost).astype(np.int32),
        pad_value=node.pad_value[keep],
    )


def _without_outputs(node: Conv, keep: Bool) -> Conv:
    """A convolution to fewer channels; a depthwise one has as many at its input."""
    stage = node.output_stage
    assert isinstance(stage, Requantize)
    fields: dict[str, Any] = {
        name: None if value is None else value[keep] for name, value in vars(stage).items()
    }
    return replace(
        node,
        weight=np.ascontiguousarray(
            node.weight[..., keep] if node.depthwise else node.weight[keep]
        ),
        bias=node.bias[keep],
        pad_value=node.pad_value[keep] if node.depthwise else node.pad_value,
        output_stage=Requantize(**fields),
    )
