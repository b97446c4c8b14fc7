"""How networks end, and float islands, judged by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.arm.agreement import assert_exact, compare, kinds
from tests.arm.qdq_files import Net, ended, images, start

# --- ends ---------------------------------------------------------------------------------------


def pooled(net: Net, x: str, size: int = 8) -> str:
    weight = net.weights((8, 1, size, size))
    return net.qdq(net.op("Conv", x, weight, group=8), 1 / 64)


def flatten_gemm(net: Net, x: str) -> str:
    weight = net.weights((8, 8), axis=0)
    x = net.op("Flatten", pooled(net, x))
    return net.op("Gemm", x, weight, net.const(np.arange(8) / 64), transB=1)


def reshape_matmul_add(net: Net, x: str) -> str:
    x = net.op("Reshape", pooled(net, x), net.const([0, -1], np.int64))
    y = net.op("MatMul", x, net.weights((8, 8), axis=1))
    return net.op("Add", y, net.const(np.arange(8) / 64))


def squeeze(net: Net, x: str) -> str:
    return net.op("Squeeze", net.conv(pooled(net, x), 8, 8), net.const([2, -1], np.int64))


def gemm_of_a_map(net: Net, x: str) -> str:
    weight = net.weights((512, 8), axis=1, reach=40)
    return net.op("Gemm", net.op("Flatten", x), weight)


def quantized_embedding(net: Net, x: str) -> str:
    return net.qdq(net.op("Flatten", net.conv(pooled(net, x), 8, 8)), 1 / 64)


def view_by_shape(net: Net, x: str) -> str:
    y = net.conv(pooled(net, x), 8, 8)
    batch = net.op("Gather", net.op("Shape", y), net.const(0, np.int64), axis=0)
    batch = net.op("Unsqueeze", batch, net.const([0], np.int64))
    shape = net.op("Concat", batch, net.const([-1], np.int64), axis=0)
    return net.op("Reshape", y, shape)


def batch_norm_at_the_end(net: Net, x: str) -> str:
    return net.batch_norm(net.op("Flatten", net.conv(pooled(net, x), 8, 8)), 8)


def lp_normalized(net: Net, x: str) -> str:
    return net.op("LpNormalization", flatten_gemm(net, x), axis=-1, p=2)


def torch_normalized(net: Net, x: str) -> str:
    y = flatten_gemm(net, x)
    norm = net.op("ReduceL2", y, axes=[1], keepdims=1)
    norm = net.op("Clip", norm, net.const(1e-12), "")
    return net.op("Div", y, net.op("Expand", norm, net.op("Shape", y)))


def normalized_plainly(net: Net, x: str) -> str:
    y = net.conv(pooled(net, x), 8, 8)
    return net.op("Flatten", net.op("Div", y, net.op("ReduceL2", y, axes=[1], keepdims=1)))


ENDS = [flatten_gemm, reshape_matmul_add, squeeze, gemm_of_a_map, quantized_embedding,
        view_by_shape, batch_norm_at_the_end, lp_normalized, torch_normalized,
        normalized_plainly]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=[e.__name__ for e in ENDS])
@pytest.mark.parametrize("batch", [1, "N"])
def test_end(end: Any, batch: Any) -> None:
    net, x = start(6)
    model = net.model(end(net, x), batch=batch)
    assert_exact(model)
    found = kinds(model)
    assert found["Normalize"] == ("normalized" in end.__name__)
    assert found["FloatConv"] == 0


# --- float islands ------------------------------------------------------------------------------


def float_stem() -> onnx.ModelProto:
    net = Net(7)
    x = net.relu6(net.conv("input", 8, 3, 3, stride=2, quantized=False))
    return ended(net, net.qdq(net.conv(net.qdq(x, 1 / 32), 8, 8), 1 / 64))


def float_middle() -> onnx.ModelProto:
    net, x = start(8)
    y = net.prelu(net.batch_norm(net.conv(x, 8, 8, 3, groups=8, quantized=False), 8), 8)
    y = net.op("Add", net.conv(y, 8, 8, quantized=False), x)
    return ended(net, net.qdq(net.op("Relu", y), 1 / 32))


def float_weights_quantized_input() -> onnx.ModelProto:
    net, x = start(9)
    return ended(net, net.qdq(net.conv(net.op("Relu", x), 8, 8), 1 / 64))


def integer_into_float() -> onnx.ModelProto:
    net, x = start(10)
    y = net.conv(net.relu6(net.conv(x, 8, 8)), 8, 8, quantized=False)
    return ended(net, net.qdq(net.prelu(net.op("Mul", net.prelu(y, 8), net.const(0.5)), 8), 1 / 64))


def half_quantized_add() -> onnx.ModelProto:
    net, x = start(11)
    return ended(net, net.qdq(net.prelu(net.op("Add", net.conv(x, 8, 8), x), 8), 1 / 32))


def pair_into_float() -> onnx.ModelProto:
    net, x = start(12)
    y = net.relu6(net.op("Add", net.qdq(net.conv(x, 8, 8), 1 / 64), x))
    return ended(net, net.qdq(net.conv(y, 8, 8, quantized=False), 1 / 64))


def float_end() -> onnx.ModelProto:
    net, x = start(13)
    x = net.op("Conv", x, net.weights((8, 1, 8, 8)), group=8)
    return net.model(net.op("Flatten", net.conv(net.qdq(x, 1 / 64), 8, 8, quantized=False)))


# How many Conv, FloatConv, FloatAdd, Dequantize, Quantize the graph must hold.
ISLANDS = [
    (float_stem, (3, 1, 0, 0, 1)),
    (float_middle, (3, 3, 1, 1, 1)),
    (float_weights_quantized_input, (3, 2, 0, 1, 1)),
    (integer_into_float, (4, 2, 0, 0, 1)),
    (half_quantized_add, (4, 1, 1, 1, 1)),
    (pair_into_float, (4, 2, 1, 2, 1)),
    (float_end, (2, 1, 0, 1, 0)),
]


@pytest.mark.parametrize(("build", "expected"), ISLANDS, ids=[b.__name__ for b, _ in ISLANDS])
def test_float_island(build: Any, expected: tuple[int, ...]) -> None:
    model = build()
    count = kinds(model)
    names = ("Conv", "FloatConv", "FloatAdd", "Dequantize", "Quantize")
    assert tuple(count[name] for name in names) == expected
    found = compare(model, images(3))
    assert found.rate < 1e-3
    assert found.largest <= 1
    assert found.cosine > 0.9999
    if found.end_to_end == 0:
        assert found.embedding_difference <= 1e-4 * found.embedding_size
