"""The same network on a smaller image: how fast it would be, before anybody has trained one.

Every layer but one runs on any size. The window of the global depthwise layer is as large as its
input; the part of it in the middle that is left makes a network of the right shape and cost. It is
no trained network: what it says about faces is worth nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import numpy as np

from mfn_compile.arm.graph import (
    Conv,
    FloatConv,
    Input,
    IntegerGraph,
    Node,
    Tensor,
    inputs_of,
)
from mfn_compile.errors import BadInputError


def resized(graph: IntegerGraph, height: int, width: int) -> IntegerGraph:
    """The graph for an image of another size.

    Raises:
        BadInputError: an embedding would be left with more than one pixel, or a layer with none.
    """
    first = graph.nodes[0]
    assert isinstance(first, Input)
    extents = {first.output: (height, width)}
    nodes: list[Node] = [first]
    for node in graph.nodes[1:]:
        inside = extents[inputs_of(node)[0]]
        fitted = _fitted(node, graph.tensors[inputs_of(node)[0]], inside)
        extents[fitted.output] = _extent(fitted, inside)
        nodes.append(fitted)
    if extents[graph.output] != (1, 1):
        raise BadInputError(
            f"The network does not run on images of {height}x{width}",
            why="its embedding would be {}x{} pixels".format(*extents[graph.output]),
        )
    tensors = {
        name: replace(tensor, height=extents[name][0], width=extents[name][1])
        for name, tensor in graph.tensors.items()
    }
    return IntegerGraph(height, width, tuple(nodes), tensors, graph.output)


@singledispatch
def _fitted(node: Node, before: Tensor, inside: tuple[int, int]) -> Node:
    """The node for an input of another extent; `before` is its input as it was."""
    return node


@_fitted.register
def _(node: Conv, before: Tensor, inside: tuple[int, int]) -> Conv:
    if not _is_global(node, before):
        return node
    kept = _middle(node.kernel, inside)
    weight = node.weight[kept]
    lost = node.weight.astype(np.int64).sum((0, 1)) - weight.astype(np.int64).sum((0, 1))
    # The bias holds minus the zero point times the sum of all weights.
    bias = node.bias + lost * node.pad_value.astype(np.int64)
    return replace(node, weight=np.ascontiguousarray(weight), bias=bias.astype(np.int32))


@_fitted.register
def _(node: FloatConv, before: Tensor, inside: tuple[int, int]) -> FloatConv:
    if not _is_global(node, before):
        return node
    return replace(node, weight=np.ascontiguousarray(node.weight[_middle(node.kernel, inside)]))


def _is_global(node: Conv | FloatConv, before: Tensor) -> bool:
    whole = node.kernel == (before.height, before.width) and node.kernel != (1, 1)
    return node.depthwise and whole and not any(node.padding)


def _middle(kernel: tuple[int, int], inside: tuple[int, int]) -> tuple[slice, slice]:
    starts = [max(have - want, 0) // 2 for have, want in zip(kernel, inside, strict=True)]
    rows, columns = (slice(s, s + want) for s, want in zip(starts, inside, strict=True))
    return rows, columns


def _extent(node: Node, inside: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(node, Conv | FloatConv):
        return inside
    top, left, bottom, right = node.padding
    spare = (inside[0] + top + bottom - node.kernel[0], inside[1] + left + right - node.kernel[1])
    if min(spare) < 0:
        raise BadInputError(
            "The image is too small for the network",
            where=node.name,
            why=f"its window is {node.kernel[0]}x{node.kernel[1]}, its input {inside[0]}x"
            f"{inside[1]}",
        )
    return spare[0] // node.stride[0] + 1, spare[1] // node.stride[1] + 1
