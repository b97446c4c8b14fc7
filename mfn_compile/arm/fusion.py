"""Moves residual additions into the epilogue of the convolution in front of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from mfn_compile.arm.graph import (
    Add,
    Conv,
    IntegerGraph,
    Node,
    Requantize,
    Residual,
    inputs_of,
)


def fuse_residuals(graph: IntegerGraph) -> IntegerGraph:
    """The same network; a convolution that only feeds an addition performs it as well.

    The fused convolution takes the addition's place in the order. Where both operands could be
    fused, the later convolution is.
    """
    readers = Counter(name for node in graph.nodes for name in inputs_of(node))
    nodes: list[Node] = []
    for node in graph.nodes:
        conv = _candidate(nodes, node, readers) if isinstance(node, Add) else None
        if conv is None or not isinstance(node, Add):
            nodes.append(node)
            continue
        nodes.remove(conv)
        swap = node.b == conv.output
        nodes.append(
            replace(
                conv,
                output=node.output,
                residual=_swapped(node.residual) if swap else node.residual,
                residual_input=node.a if swap else node.b,
            )
        )
    tensors = {node.output: graph.tensors[node.output] for node in nodes}
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _candidate(nodes: list[Node], add: Add, readers: Counter[str]) -> Conv | None:
    """The last convolution to int8 that nobody but the addition reads."""
    for node in reversed(nodes):
        if node.output in (add.a, add.b) and isinstance(node, Conv):
            alone = readers[node.output] == 1 and node.residual is None
            if alone and isinstance(node.output_stage, Requantize):
                return node
    return None


def _swapped(residual: Residual) -> Residual:
    return replace(residual, scale_a=residual.scale_b, scale_b=residual.scale_a)
