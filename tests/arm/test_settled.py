"""Constant channels lose their weights and keep their results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfn_compile.arm import oracle
from mfn_compile.arm.graph import Conv, Requantize
from mfn_compile.arm.kernels.settled import settled
from tests.arm.graphs import Draft, Style, images


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("limits", ["full", "relu", "relu6"])
def test_results_stay_and_constant_channels_have_no_weights(depthwise: bool, limits: str) -> None:
    draft = Draft(3, Style(limits=limits, zero="each"))
    x = draft.conv(draft.image(5, 4), 24)
    x = draft.conv(x, 0 if depthwise else 24, (3, 3))
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    assert isinstance(node.output_stage, Requantize)
    tiny = np.where(np.arange(24) % 3 == 0, np.float32(1e-9), node.output_stage.multiplier)
    bias = np.where(np.arange(24) % 3 == 0, 2**24 - 1, node.bias).astype(np.int32)
    stage = replace(node.output_stage, multiplier=tiny.astype(np.float32))
    draft.change(bias=bias, output_stage=stage)
    last = draft.conv(x, 8, to_float=True, kernel=draft.shape(x)[:2])
    graph = draft.graph(last)
    nodes = [settled(each) if isinstance(each, Conv) else each for each in graph.nodes]
    changed = nodes[2]
    assert isinstance(changed, Conv)
    weight = changed.weight if depthwise else np.moveaxis(changed.weight, 0, -1)
    assert not weight[..., ::3].any()
    for image in images(graph, 2):
        found = oracle.run(replace(graph, nodes=tuple(nodes)), image)
        assert np.array_equal(found[x], oracle.run(graph, image)[x])
