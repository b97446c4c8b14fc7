"""Channels that are always the same, whatever the input: computed once, when code is generated.

A trained network has some. Their weights are tiny beside their bias, which is near 2**24 then, and
that keeps a whole layer from shorter instruction sequences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.graph import Conv, Requantize

Array = NDArray[Any]


def settled(node: Conv) -> Conv:
    """The convolution with the same results; a constant channel has no weights.

    Its bias is the result, without the zero point, and its multiplier 1.
    """
    stage = node.output_stage
    if not isinstance(stage, Requantize) or stage.negative is not None:
        return node
    axes = (0, 1) if node.depthwise else (1, 2, 3)
    reach = 128 * np.abs(node.weight.astype(np.int64)).sum(axis=axes)
    ends = [_result(stage, node.bias + side * reach) for side in (-1, 1)]
    constant = (ends[0] == ends[1]) & (stage.multiplier >= 0)
    if not constant.any():
        return node
    weight = np.where(constant if node.depthwise else constant[:, None, None, None], 0, node.weight)
    bias = np.where(constant, ends[0], node.bias).astype(node.bias.dtype)
    multiplier = np.where(constant, np.float32(1), stage.multiplier).astype(np.float32)
    return replace(
        node,
        weight=weight.astype(np.int8),
        bias=bias,
        output_stage=replace(stage, multiplier=multiplier),
    )


def _result(stage: Requantize, total: Array) -> Array:
    """The result without the zero point; as the oracle computes it, it rises with the total."""
    zero = stage.zero_point.astype(np.int64)
    with np.errstate(over="ignore"):  # it is clipped
        scaled = total.astype(np.float32) * stage.multiplier
    bounds = (stage.low.astype(np.int64) - zero, stage.high.astype(np.int64) - zero)
    found: Array = np.clip(np.rint(scaled), *bounds).astype(np.int64)
    return found
