"""The exact grid: a QDQ network whose float32 sums never round, so every executor agrees.

A convolution of a QDQ file sums products (q_a m_a 2^e)(q_w m_w 2^f), with q the integers and
m 2^e the scales. While m_a and m_w are short integers, every partial sum is an integer of at most
2^24 times a power of two: float32 holds it exactly, the order of summation does not matter, and an
integer accumulator computes the same number. With ordinary scales each order rounds differently;
one rounding that falls the other way becomes another int8 value, and the next layers multiply it.

What is chosen here, layer by layer:

    activation scale   mantissa of 4 bits; a power of two behind a PReLU, without loss (`gauge`)
    weight scale       mantissa of up to 5 bits, a channel; fewer where a sum could reach 2^24
    bias               a multiple of s_a s_w, which is what an integer accumulator starts with
    PReLU slope        mantissa of 15 bits

The bias of each layer is set anew, with everything before it already on the grid, so that every
channel keeps its mean: errors of the layers before do not add up.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.quantize.exact_weights import Problem, Weights, best_weights, column, shorten
from mfn_compile.quantize.gauge import gauged, nearest_power, paired_layers
from mfn_compile.quantize.graph import Graph, attribute, is_depthwise
from mfn_compile.quantize.onnxruntime_session import Floats
from mfn_compile.quantize.qdq import DEQUANTIZE, QUANTIZE
from mfn_compile.quantize.sweep import Sweep, Taps, channel_means, taps

ACTIVATION_BITS = 4
SLOPE_BITS = 15  # with both scales' mantissas, 4 and 5 bits, no more than float32's 24
ACTIVATIONS = ("PRelu", "Relu", "LeakyRelu", "Clip")
Doubles = NDArray[np.float64]


class ExactGrid(NamedTuple):
    """The QDQ network on the grid, and the float network that its tensors stand for."""

    qdq: onnx.ModelProto
    fp32: onnx.ModelProto


def to_exact_grid(
    qdq: onnx.ModelProto,
    fp32: onnx.ModelProto,
    images: Floats,
    *,
    means: Literal["fp32", "qdq"] = "fp32",
) -> ExactGrid:
    """`qdq` on the exact grid. Neither argument is changed.

    Convolutions that are not quantized stay as they are, except for the factors of the gauge.

    Args:
        qdq: QDQ network.
        fp32: the float network with the weights that `qdq` rounds, its layers in the same order.
        images: preprocessed calibration images float32 [N, 3, H, W]; a few dozen are enough.
        means: whose mean outputs the biases keep. "qdq" for biases that were trained, or were not
            to be corrected.

    Raises:
        InternalCheckError: the two networks have different layers or weights, or a layer fits no
            grid.
    """
    moved, reference = gauged(qdq, fp32)
    graph, floats = Graph(moved), Graph(reference)
    twin = paired_layers(graph, floats)
    convs = [node for node in graph.layers() if _quantized(graph, node)]
    outputs = [node.output[0] for node in convs]
    if means == "fp32":
        names = [twin[name].output[0] for name in outputs]
        wanted = channel_means(reference, names, images)
    else:
        wanted = channel_means(moved, outputs, images)
    _shorten_activations(graph)
    _shorten_slopes(graph)
    sweep = Sweep(graph, images)
    for conv, mean in zip(convs, wanted, strict=True):
        target = floats.array(twin[conv.output[0]].input[1]).astype(np.float64)
        kernel = (int(target.shape[2]), int(target.shape[3]))
        seen = taps(conv, kernel, sweep.tensor(conv.input[0]))
        _store(graph, conv, _problem(graph, conv, target, seen, mean))
    return ExactGrid(moved, reference)


def _quantized(graph: Graph, node: Any) -> bool:
    if node.op_type != "Conv":
        return False
    sources = [graph.producer.get(name) for name in node.input[:2]]
    return all(source is not None and source.op_type == DEQUANTIZE for source in sources)


def _shorten_activations(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op_type != QUANTIZE:
            continue
        before = graph.producer.get(node.input[0])
        scale = graph.array(node.input[1]).astype(np.float64)
        # behind a PReLU that the gauge could not reach this costs range, but an integer kernel
        # needs the power of two: it rounds twice there, first the product with the slope
        power = before is not None and before.op_type == "PRelu"
        short = nearest_power(scale) if power else shorten(scale, ACTIVATION_BITS)
        for user in (node, *graph.consumers[node.output[0]]):
            graph.store(user.input[1], short.astype(np.float32))


def _shorten_slopes(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op_type == "PRelu":
            slope = shorten(graph.array(node.input[1]), SLOPE_BITS)
            graph.store(node.input[1], slope.astype(np.float32))


def _problem(graph: Graph, conv: Any, target: Doubles, seen: Taps, mean: Doubles) -> Problem:
    weights, fed = graph.producer[conv.input[1]], graph.producer[conv.input[0]]
    scale = graph.array(weights.input[1]).astype(np.float64)
    low, high = _limits(graph, fed)
    axis = 1 if is_depthwise(graph, conv) else 0  # a depthwise row has one input channel, its own
    return Problem(
        name=conv.name,
        old=Weights(graph.array(weights.input[0]).astype(np.float64), scale),
        target=target,
        step=np.broadcast_to(graph.array(fed.input[1]).astype(np.float64), scale.shape),
        low=column(low) if low.ndim else low,
        high=column(high) if high.ndim else high,
        taps=Taps(np.expand_dims(seen.mean, axis), np.expand_dims(seen.variance, axis)),
        wanted=mean,
        output=np.broadcast_to(_scale_behind(graph, conv), scale.shape),
    )


def _scale_behind(graph: Graph, conv: Any) -> Doubles:
    """Scale of the quantizer that the output reaches through an activation; 1 without any."""
    name = conv.output[0]
    while len(graph.consumers[name]) == 1:
        node = graph.consumers[name][0]
        if node.op_type == QUANTIZE:
            return graph.array(node.input[1]).astype(np.float64)
        if node.op_type not in ACTIVATIONS:
            break
        name = node.output[0]
    return np.ones(())


def _store(graph: Graph, conv: Any, problem: Problem) -> None:
    new = best_weights(problem)
    bias = problem.integer_bias(new) * problem.step * new.scale
    weights = graph.producer[conv.input[1]]
    graph.store(weights.input[0], new.integers.astype(np.int8))
    graph.store(weights.input[1], new.scale.astype(np.float32))
    graph.store(conv.input[2], bias.astype(np.float32))


def _limits(graph: Graph, dequantizer: Any) -> tuple[Doubles, Doubles]:
    """What the integers of an activation, less their zero point, can be."""
    zero = graph.array(dequantizer.input[2])
    kind = np.iinfo(zero.dtype)
    low, high = kind.min - zero.astype(np.float64), kind.max - zero.astype(np.float64)
    before = graph.producer.get(graph.producer[dequantizer.input[0]].input[0])
    if before is not None and _never_negative(graph, before):
        low = np.zeros_like(low)
    return low, high


def _never_negative(graph: Graph, node: Any) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.input) < 2 or not node.input[1]:
        return False
    if graph.has(node.input[1]):
        return bool(graph.array(node.input[1]) >= 0)
    source = graph.producer.get(node.input[1])
    if source is None or source.op_type != "Constant":
        return False
    return bool(onnx.numpy_helper.to_array(attribute(source, "value", None)) >= 0)
