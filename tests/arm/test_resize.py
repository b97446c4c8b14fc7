"""Networks on smaller images: shapes, and the arithmetic of the window that is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfn_compile.arm import oracle
from mfn_compile.arm.graph import Conv
from mfn_compile.arm.host import HostNetwork
from mfn_compile.arm.resize import resized
from mfn_compile.errors import BadInputError
from tests.arm.conftest import Quantized


def test_a_smaller_network_runs_and_equals_its_oracle(tiny: Quantized) -> None:
    graph = tiny.graph
    small = resized(graph, graph.height, graph.width - 16)
    rgb = np.random.default_rng(1).integers(0, 256, (2, small.height, small.width, 3), np.uint8)
    assert np.array_equal(HostNetwork(small).embed(rgb), oracle.embed(small, rgb))
    assert [node.name for node in small.nodes] == [node.name for node in graph.nodes]


def test_its_own_size_changes_nothing(tiny: Quantized) -> None:
    graph = tiny.graph
    same = resized(graph, graph.height, graph.width)
    rgb = np.random.default_rng(2).integers(0, 256, (1, graph.height, graph.width, 3), np.uint8)
    assert same.tensors == graph.tensors
    assert np.array_equal(oracle.embed(same, rgb), oracle.embed(graph, rgb))


def test_the_cut_window_is_the_whole_one_over_zero_points(tiny: Quantized) -> None:
    """Where the lost columns would have read zero points, nothing is lost."""
    graph = tiny.graph
    small = resized(graph, graph.height, graph.width - 16)
    at = next(i for i, n in enumerate(graph.nodes) if _is_cut(n, small.nodes[i]))
    whole, cut = graph.nodes[at], small.nodes[at]
    assert isinstance(whole, Conv)
    assert isinstance(cut, Conv)
    shape = (*cut.kernel, len(whole.pad_value))
    middle = np.random.default_rng(3).integers(-128, 128, shape).astype(np.int8)
    wide = np.broadcast_to(whole.pad_value, (*whole.kernel, shape[2])).copy()
    left = (whole.kernel[1] - cut.kernel[1]) // 2
    wide[:, left : left + cut.kernel[1]] = middle
    assert np.array_equal(oracle.accumulate(cut, middle), oracle.accumulate(whole, wide))


def _is_cut(before: object, after: object) -> bool:
    return isinstance(before, Conv) and isinstance(after, Conv) and before.kernel != after.kernel


def test_an_image_that_leaves_nothing_is_refused(tiny: Quantized) -> None:
    first = tiny.graph.nodes[1]
    assert isinstance(first, Conv)
    no_pads = replace(first, padding=(0, 0, 0, 0))
    graph = replace(tiny.graph, nodes=(tiny.graph.nodes[0], no_pads, *tiny.graph.nodes[2:]))
    with pytest.raises(BadInputError, match=r"too small|does not run"):
        resized(graph, 2, 2)
