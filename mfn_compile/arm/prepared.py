"""The form of a graph that is compiled: fewer channels, in a better order, the same embeddings."""

from __future__ import annotations

from mfn_compile.arm.channel_order import ordered
from mfn_compile.arm.constant_channels import without_constant_channels
from mfn_compile.arm.graph import IntegerGraph


def prepared(graph: IntegerGraph) -> IntegerGraph:
    """The graph without constant channels, the others in the order that kernels like best."""
    return ordered(without_constant_channels(graph))
