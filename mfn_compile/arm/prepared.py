"""The form of a graph that is compiled: fewer channels, in a better order, the same embeddings."""

from __future__ import annotations

from functools import lru_cache

from mfn_compile.arm.channel_order import ordered
from mfn_compile.arm.constant_channels import without_constant_channels
from mfn_compile.arm.graph import IntegerGraph


@lru_cache(maxsize=2)  # a run asks for the same graph several times, and it takes seconds
def prepared(graph: IntegerGraph) -> IntegerGraph:
    """The graph without constant channels, the others in the order that kernels like best."""
    return ordered(without_constant_channels(graph))
