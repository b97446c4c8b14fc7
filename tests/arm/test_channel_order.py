"""The order of channels: it changes no embedding, and it lets four products add up in 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from mfn_compile.arm import oracle
from mfn_compile.arm.channel_order import ordered
from mfn_compile.arm.graph import Conv, IntegerGraph
from mfn_compile.arm.kernels import gemm
from tests.arm.graphs import Draft, bits, graphs, images


@given(graph=graphs())
@settings(max_examples=25, deadline=None)
def test_random_networks_keep_their_embeddings(graph: IntegerGraph) -> None:
    found = ordered(graph)
    assert [node.name for node in found.nodes] == [node.name for node in graph.nodes]
    assert found.tensors == graph.tensors
    for image in images(graph, 2):
        ours, theirs = oracle.run(found, image), oracle.run(graph, image)
        assert np.array_equal(bits(ours[graph.output]), bits(theirs[graph.output]))
        for name, value in ours.items():
            assert np.array_equal(np.sort(bits(value)), np.sort(bits(theirs[name])))


def block(heavy: int) -> IntegerGraph:
    """Expand, depthwise and project on a chain, where neighbours in 16 bits have large weights."""
    random = np.random.default_rng(heavy)
    draft = Draft(heavy)
    x = draft.conv(draft.image(4, 4), 64)
    y = draft.conv(x, 128)
    weight = random.integers(-20, 20, (128, 1, 1, 64), np.int8)
    weight[:heavy, ..., :8] = 127
    weight[:heavy, ..., 8:16] = -127
    draft.change(weight=weight)
    y = draft.conv(y, 0, (3, 3), padding=(1, 1, 1, 1))
    x = draft.conv(y, 64, skip=x)
    weight = random.integers(-20, 20, (64, 1, 1, 128), np.int8)
    weight[..., :32:3] = 120
    draft.change(weight=weight)
    return draft.graph(draft.conv(x, 8, draft.shape(x)[:2], to_float=True))


def fit(graph: IntegerGraph) -> list[int]:
    """How many channels of each matrix product can be summed by fours."""
    layers = [node for node in graph.nodes if isinstance(node, Conv) and not node.depthwise]
    flat = [node.weight.reshape(len(node.bias), -1) for node in layers if node.kernel == (1, 1)]
    return [gemm.fours_fit(np.pad(each, ((0, 0), (0, -each.shape[1] % 16)))) for each in flat]


@pytest.mark.parametrize("heavy", [0, 1, 20])
def test_large_weights_are_kept_apart(heavy: int) -> None:
    graph = block(heavy)
    assert fit(graph)[-1] == 0
    assert fit(ordered(graph))[-2:] == [128, 64]


def test_rows_that_never_fit_come_last() -> None:
    graph = block(1)
    at = next(i for i, node in enumerate(graph.nodes) if len(getattr(node, "bias", ())) == 128)
    expand = graph.nodes[at]
    assert isinstance(expand, Conv)
    weight = expand.weight.copy()
    weight[5] = 127
    nodes = (*graph.nodes[:at], replace(expand, weight=weight), *graph.nodes[at + 1 :])
    found = ordered(replace(graph, nodes=nodes))
    assert fit(found)[-2:] == [112, 64]


def test_the_same_graph_gets_the_same_order() -> None:
    one, other = (ordered(block(20)) for _ in range(2))
    for a, b in zip(one.nodes, other.nodes, strict=True):
        if isinstance(a, Conv) and isinstance(b, Conv):
            assert np.array_equal(a.weight, b.weight)
