"""The integer graph in NumPy: the definition that every kernel is tested against.

Written for reading, not for speed; every function is the sentence of `graph.py` it quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.graph import (
    Add,
    Conv,
    Dequantize,
    Float32,
    FloatAdd,
    FloatConv,
    Input,
    Int8,
    Int32,
    IntegerGraph,
    Lookup,
    Node,
    Normalize,
    Quantize,
    Requantize,
    Residual,
    ToFloat,
)

Array = NDArray[Any]


def run(graph: IntegerGraph, rgb: NDArray[np.uint8]) -> dict[str, Array]:
    """Every tensor [H, W, C] of the graph for one image, uint8 RGB [height, width, 3]."""
    first = graph.nodes[0]
    assert isinstance(first, Input)
    return _run(graph, normalize_input(first, rgb))


def run_quantized(graph: IntegerGraph, image: Array) -> dict[str, Array]:
    """As `run`, from the network's first tensor (int8, or float32) [height, width, 3]."""
    return _run(graph, image)


def embed(graph: IntegerGraph, rgb: NDArray[np.uint8]) -> Float32:
    """Embeddings float32 [N, D] of images uint8 RGB [N, height, width, 3]."""
    return np.stack([run(graph, image)[graph.output].reshape(-1) for image in rgb])


def _run(graph: IntegerGraph, image: Array) -> dict[str, Array]:
    tensors = {graph.nodes[0].output: image}
    for node in graph.nodes[1:]:
        tensors[node.output] = run_node(node, tensors)
    return tensors


def run_node(node: Node, tensors: dict[str, Array]) -> Array:
    """The output of one node (not the Input), from the tensors by name that it reads."""
    match node:
        case Conv():
            result = finish(accumulate(node, tensors[node.input]), node.output_stage)
            if node.residual is not None and node.residual_input is not None:
                return add(node.residual, result, tensors[node.residual_input])
            return result
        case Add():
            return add(node.residual, tensors[node.a], tensors[node.b])
        case Lookup():
            codes = tensors[node.input].astype(np.intp) + 128
            return node.table[np.arange(codes.shape[2]), codes]
        case Dequantize():
            codes = tensors[node.input].astype(np.int32) - node.zero_point
            return codes.astype(np.float32) * node.scale
        case Quantize():
            with np.errstate(over="ignore"):
                rounded = np.rint(tensors[node.input] / node.scale)
            return np.clip(rounded + node.zero_point, -128, 127).astype(np.int8)
        case FloatConv():
            return float_convolution(node, tensors[node.input])
        case FloatAdd():
            return np.asarray(tensors[node.a] + tensors[node.b])
        case Normalize():
            return normalize(tensors[node.input], node.epsilon)
    raise TypeError(f"{type(node).__name__} does not compute anything from tensors")


def normalize_input(node: Input, rgb: NDArray[np.uint8]) -> Array:
    """table[c][pixel of channel channels[c]], [H, W, 3]."""
    return node.table[np.arange(3), rgb[..., list(node.channels)]]


def accumulate(node: Conv, image: Int8) -> Int32:
    """bias + sum of image times weight, exact (a float64 holds every such sum), int32."""
    padded = _padded(image, node.padding, node.pad_value)
    kernel, stride = node.kernel, node.stride
    if node.depthwise:
        total: Array = np.int32(0)  # type: ignore[assignment]
        for (row, column), pixels in _windows(padded, kernel, stride):
            total = total + pixels.astype(np.int32) * node.weight[row, column].astype(np.int32)
        return np.asarray(total + node.bias, np.int32)
    columns = np.concatenate([pixels for _, pixels in _windows(padded, kernel, stride)], axis=2)
    matrix = node.weight.reshape(len(node.weight), -1).T.astype(np.float64)
    return (columns.astype(np.float64) @ matrix).astype(np.int32) + node.bias


def _padded(image: Array, padding: tuple[int, int, int, int], value: Array) -> Array:
    """The image [H, W, C] in a frame of `value` [C]."""
    top, left, bottom, right = padding
    height, width, channels = image.shape
    result = np.empty((height + top + bottom, width + left + right, channels), image.dtype)
    result[:] = value
    result[top : top + height, left : left + width] = image
    return result


def _windows(
    padded: Array, kernel: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], Array]]:
    """Kernel position and what lies under it at every output position, [OH, OW, C]."""
    height = (padded.shape[0] - kernel[0]) // stride[0] + 1
    width = (padded.shape[1] - kernel[1]) // stride[1] + 1
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            rows = slice(row, row + (height - 1) * stride[0] + 1, stride[0])
            columns = slice(column, column + (width - 1) * stride[1] + 1, stride[1])
            yield (row, column), padded[rows, columns]


def _scaled(accumulator: Int32, stage: Requantize | ToFloat) -> Float32:
    """float32(accumulator) * multiplier, by sign where there are two."""
    multiplier: Array = stage.multiplier
    if stage.negative is not None:
        multiplier = np.where(accumulator < 0, stage.negative, stage.multiplier)
    with np.errstate(over="ignore"):
        return accumulator.astype(np.float32) * multiplier


def _clip(value: Array, low: Float32, high: Float32) -> Float32:
    """max(min(value, high), low); of two equal ones (zeros of both signs) the bound is taken."""
    value = np.where(value < high, value, high)
    return np.where(value > low, value, low)


def finish(accumulator: Int32, stage: Requantize | ToFloat) -> Array:
    """int8 = clip(round_half_even(scaled) + zero_point, low, high); or the clipped float32."""
    scaled = _scaled(accumulator, stage)
    if isinstance(stage, ToFloat):
        return _clip(scaled, stage.low, stage.high)
    # Far from zero the addition rounds, but that is far outside of [low, high].
    return np.clip(np.rint(scaled) + stage.zero_point, stage.low, stage.high).astype(np.int8)


def add(residual: Residual, a: Int8, b: Int8) -> Int8:
    """a * scale_a + b * scale_b + offset, to int8."""
    total = a.astype(np.int32) * residual.scale_a + b.astype(np.int32) * residual.scale_b
    return finish(total + residual.offset, residual.output)


def fused_multiply_add(a: Float32, b: Float32, c: Float32) -> Float32:
    """a * b + c with one rounding to float32.

    The product is exact in float64. The sum is rounded to odd there (of the two neighbours the one
    whose last bit is set, unless it is exact), so that rounding once more to float32 gives what
    one rounding would have given.
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    wrong = (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    odd = (bits + np.where(wrong, np.where(away, 1, -1), 0)).view(np.float64)
    with np.errstate(over="ignore"):
        return odd.astype(np.float32)


def float_convolution(node: FloatConv, image: Float32) -> Float32:
    """bias, then fused multiply-adds by kernel row, kernel column, input channel."""
    padded = _padded(image, node.padding, np.zeros(1, np.float32))
    kernel = node.weight.shape[:2] if node.depthwise else node.weight.shape[1:3]
    total: Array = node.bias
    for (row, column), pixels in _windows(padded, (kernel[0], kernel[1]), node.stride):
        if node.depthwise:
            total = fused_multiply_add(pixels, node.weight[row, column], total)
            continue
        for channel in range(image.shape[2]):
            weight = node.weight[:, row, column, channel]
            total = fused_multiply_add(pixels[..., channel, None], weight, total)
    if node.slope is not None:
        total = np.where(total < 0, total * node.slope, total)
    return _clip(total, node.low, node.high)


def normalize(embedding: Float32, epsilon: float) -> Float32:
    """value / max(sqrt(sum of squares), epsilon)."""
    total: Array = np.zeros(1, np.float32)
    for value in embedding.reshape(-1, 1):
        total = fused_multiply_add(value, value, total)
    return np.asarray(embedding / np.maximum(np.sqrt(total), np.float32(epsilon)), np.float32)
