"""Files that the reader must refuse, each with a sentence that names the place and the reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mfn_compile.arm.reader import read_graph
from mfn_compile.errors import BadInputError, ExitCode
from tests.arm.qdq_files import PREPROCESSING, Net, float_network, plain, runtime_quantized


def refuse(model: Any, sentence: str) -> str:
    with pytest.raises(BadInputError, match=f"(?i){sentence}") as caught:
        read_graph(model, PREPROCESSING)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert caught.value.where
    return str(caught.value)


# --- files --------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "no.onnx", "does not exist")


@pytest.mark.parametrize("content", [b"no protobuf at all", b"\x08\x08", b"\xff" * 100])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "q.onnx").write_bytes(content)
    refuse(tmp_path / "q.onnx", "damaged|not quantized")


@pytest.mark.parametrize("as_path", [False, True])
def test_external_data(tmp_path: Path, as_path: bool) -> None:
    model = plain()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    (tmp_path / "q.onnx").write_bytes(model.SerializeToString())
    refuse(tmp_path / "q.onnx" if as_path else model, "lies in another file")


def test_a_float_model_is_told_to_quantize() -> None:
    assert "mfn-compile quantize" in refuse(float_network(), "is not quantized")


@pytest.mark.parametrize("opset", [11, 12, 22])
def test_opset(opset: int) -> None:
    refuse(plain(opset=opset), f"opset {opset}, supported are 13 to 21")


# --- whole models, changed in one place ---------------------------------------------------------


def node_of(model: onnx.ModelProto, op: str, number: int = 0) -> Any:
    return [n for n in model.graph.node if n.op_type == op][number]


def tensor_of(model: onnx.ModelProto, name: str) -> Any:
    return next(t for t in model.graph.initializer if t.name == name)


def put(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    tensor = tensor_of(model, name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def set_attribute(node: Any, name: str, value: Any) -> None:
    for item in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(item)
    node.attribute.append(helper.make_attribute(name, value))


def image_dims(model: onnx.ModelProto) -> Any:
    return model.graph.input[0].type.tensor_type.shape.dim


@pytest.mark.parametrize("number", [2, 3])
def test_dynamic_height_or_width(number: int) -> None:
    model = plain()
    image_dims(model)[number].dim_param = "size"
    assert "dynamic" in refuse(model, r"must be float32 \[1 or N, 3, 16, 16\]")


def test_another_size_than_the_preprocessing() -> None:
    net = Net()
    x = net.qdq(net.conv(net.qdq("input"), 8, 3, 3, stride=2), 1 / 32)
    refuse(net.model(net.head(x, 8, 10), size=20), r"is FLOAT \[1, 3, 20, 20\]")


def test_two_inputs() -> None:
    model = plain()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    refuse(model, "2 inputs and 1 outputs")


@pytest.mark.parametrize("scale", [0.0, -0.5, np.inf])
@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear"])
def test_scales_that_are_none(scale: float, kind: str) -> None:
    model = plain()
    name = node_of(model, kind, 1).input[1]
    put(model, name, lambda a: np.full_like(a, scale))
    assert "node_" in refuse(model, "scale is not positive and finite")


def test_nan_scale() -> None:
    model = plain()
    put(model, node_of(model, "QuantizeLinear").input[1], lambda a: np.full_like(a, np.nan))
    refuse(model, "holds NaN")


def test_missing_scale() -> None:
    model = plain()
    node_of(model, "QuantizeLinear").input[1] = "nowhere"
    refuse(model, "damaged")


def test_missing_weights() -> None:
    model = plain()
    name = node_of(model, "DequantizeLinear", 1).input[0]
    model.graph.initializer.remove(tensor_of(model, name))
    refuse(model, "damaged")


def test_bytes_that_do_not_fit_the_shape() -> None:
    model = plain()
    tensor_of(model, node_of(model, "DequantizeLinear", 1).input[0]).raw_data = b"123"
    refuse(model, "damaged.*3 bytes")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("auto_pad", "SAME_UPPER", "auto_pad SAME_UPPER"),
        ("dilations", [2, 2], "dilated"),
        ("pads", [3, 3, 3, 3], "do not fit a window"),
        ("group", 3, "3 groups of 3 channels to 8"),
    ],
)
def test_convolution_attributes(name: str, value: Any, sentence: str) -> None:
    model = plain()
    set_attribute(node_of(model, "Conv"), name, value)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "D"
    refuse(model, sentence)


# --- networks with one node that has no place ---------------------------------------------------


def started(**keywords: Any) -> tuple[Net, str]:
    net = Net(**keywords)
    return net, net.qdq(net.conv(net.qdq("input"), 8, 3, 3, stride=2), 1 / 32)


def unknown_operator(net: Net, x: str) -> str:
    return net.op("Sigmoid", x)


def foreign_domain(net: Net, x: str) -> str:
    return net.op("Relu", x, domain="com.microsoft")


def groups(net: Net, x: str) -> str:
    return net.conv(x, 8, 8, groups=2)


def channel_multiplier(net: Net, x: str) -> str:
    return net.conv(net.qdq(net.conv(x, 16, 8, groups=8), 1 / 32), 8, 16)


def wide_weights(net: Net, x: str) -> str:
    weight, zero = np.full((8, 8, 1, 1), 255), np.zeros(8)
    inputs = net.const(weight, np.uint8), net.const(np.ones(8)), net.const(zero, np.uint8)
    return net.op("Conv", x, net.op("DequantizeLinear", *inputs, axis=0))


def int32_weights(net: Net, x: str) -> str:
    weight = net.const(np.full((8, 8, 1, 1), 300), np.int32)
    return net.op("Conv", x, net.op("DequantizeLinear", weight, net.const(1.0)))


def computed_weights(net: Net, x: str) -> str:
    weight = net.op("Reshape", net.qdq(x), net.const([8, 8, 8, 1], np.int64))
    return net.op("Conv", x, weight)


def infinite_weights(net: Net, x: str) -> str:
    return net.op("Conv", x, net.const(np.full((8, 8, 1, 1), np.inf)))


def scales_per_input_channel(net: Net, x: str) -> str:
    weight = net.const(np.ones((8, 8, 1, 1)), np.int8)
    return net.op("Conv", x, net.op("DequantizeLinear", weight, net.const(np.arange(1, 9)), axis=1))


def channel_scales_before_a_sum(net: Net, x: str) -> str:
    return net.conv(net.qdq(net.op("Relu", x), np.arange(1, 9) / 64), 8, 8)


def scales_along_the_height(net: Net, x: str) -> str:
    scale, zero = net.const(np.full(8, 0.5)), net.const(np.zeros(8), np.int8)
    codes = net.op("QuantizeLinear", x, scale, zero, axis=2)
    return net.op("DequantizeLinear", codes, scale, zero, axis=2)


def computed_scale(net: Net, x: str) -> str:
    scale = net.op("Relu", x)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale), scale)


def another_type_of_zero_point(net: Net, x: str) -> str:
    scale = net.const(0.5)
    codes = net.op("QuantizeLinear", x, scale, net.const(0, np.int8))
    return net.op("DequantizeLinear", codes, scale, net.const(0, np.uint8))


def sixteen_bits(net: Net, x: str) -> str:
    return net.qdq(x, dtype=np.int16)


def blocks(net: Net, x: str) -> str:
    scale = net.const(np.ones((1, 8, 1, 8)))
    codes = net.op("QuantizeLinear", x, scale, axis=2, block_size=8)
    return net.op("DequantizeLinear", codes, scale, axis=2, block_size=8)


def uneven_add(net: Net, x: str) -> str:
    small = net.qdq(net.op("Conv", x, net.weights((8, 1, 8, 8)), group=8))
    return net.op("Add", x, small)


def slope_per_pixel(net: Net, x: str) -> str:
    return net.op("PRelu", x, net.const(np.ones((1, 8, 8))))


def computed_slope(net: Net, x: str) -> str:
    return net.op("PRelu", x, x)


def division_by_zero(net: Net, x: str) -> str:
    return net.op("Div", x, net.const(0.0))


def constant_over_activation(net: Net, x: str) -> str:
    return net.op("Div", net.const(1.0), x)


def product_of_activations(net: Net, x: str) -> str:
    return net.op("Mul", x, x)


def infinite_slope(net: Net, x: str) -> str:
    return net.op("PRelu", x, net.const(np.inf))


def negative_variance(net: Net, x: str) -> str:
    one = net.const(np.ones(8))
    return net.op("BatchNormalization", x, one, one, one, net.const(-np.ones(8)))


def training_mode(net: Net, x: str) -> str:
    return net.op("Dropout", x, net.const(0.5), net.const(True, np.bool_))


def codes_as_floats(net: Net, x: str) -> str:
    return net.op("Cast", net.op("QuantizeLinear", x, net.const(1.0)), to=TensorProto.FLOAT)


def odd_reshape(net: Net, x: str) -> str:
    return net.op("Reshape", x, net.const([1, 4, 16, 8], np.int64))


def unflattened_product(net: Net, x: str) -> str:
    return net.op("MatMul", x, net.weights((8, 8), axis=1))


def scaled_gemm(net: Net, x: str) -> str:
    return net.op("Gemm", net.op("Flatten", x), net.weights((512, 8), axis=1), alpha=0.5)


def norm_over_pixels(net: Net, x: str) -> str:
    return net.op("LpNormalization", x, axis=1, p=2)


def first_norm(net: Net, x: str) -> str:
    flat = net.op("Flatten", net.op("Conv", x, net.weights((8, 1, 8, 8)), group=8))
    return net.op("LpNormalization", flat, axis=1, p=1)


def norm_of_something_else(net: Net, x: str) -> str:
    flat = net.op("Flatten", net.op("Conv", x, net.weights((8, 1, 8, 8)), group=8))
    other = net.op("Relu", flat)
    return net.op("Div", flat, net.op("ReduceL2", other, net.const([1], np.int64)))


def a_map_as_output(net: Net, x: str) -> str:
    return net.op("Flatten", x)


def overflow(net: Net, x: str) -> str:
    weight = net.const(np.full((2400, 8, 1, 1), 127), np.int8)
    y = net.qdq(net.op("Conv", x, net.op("DequantizeLinear", weight, net.const(1e-4))))
    weight = net.const(np.full((2400 * 64, 8), 127), np.int8)
    weight = net.op("DequantizeLinear", weight, net.const(1e-4))
    return net.op("MatMul", net.op("Flatten", y), weight)


def two_images(net: Net, x: str) -> str:
    return net.op("Add", x, net.qdq(net.conv(net.qdq("input", 1.5), 8, 3, 3, stride=2), 1 / 32))


REFUSALS = [
    (unknown_operator, "operator Sigmoid cannot be compiled for ARM"),
    (foreign_domain, "operator com.microsoft.Relu cannot be compiled"),
    (groups, "2 groups of 8 channels.*compile this network for intel"),
    (channel_multiplier, "8 groups of 8 channels to 16"),
    (wide_weights, "weights are outside of int8"),
    (int32_weights, "weights are outside of int8"),
    (computed_weights, "it turns .* into"),
    (infinite_weights, "no int8 or float32 constant"),
    (scales_per_input_channel, "one scale an input channel"),
    (channel_scales_before_a_sum, "one scale a channel, but it sums over channels"),
    (scales_along_the_height, "8 scales do not belong to 8 channels"),
    (computed_scale, "scale is no float32 constant"),
    (another_type_of_zero_point, "another type than its input|ONNX file is damaged"),
    (sixteen_bits, "quantizes to int16"),
    (blocks, "one scale a block"),
    (uneven_add, r"it adds \[1, 8, 8, 8\] and \[1, 8, 1, 1\]"),
    (slope_per_pixel, r"shape \[1, 8, 8\] does not belong to 8 channels"),
    (computed_slope, "PRelu of Decoded and Decoded has no place"),
    (division_by_zero, "divides by an activation or by 0"),
    (constant_over_activation, "divides by an activation or by 0"),
    (product_of_activations, "Mul of Decoded and Decoded has no place"),
    (infinite_slope, "infinite or not a number"),
    (negative_variance, "variance is not above 0"),
    (training_mode, "training mode"),
    (codes_as_floats, "Cast of Codes has no place"),
    (odd_reshape, "it turns .* into"),
    (unflattened_product, "its input is not flattened"),
    (scaled_gemm, "it has alpha"),
    (norm_over_pixels, "not the L2 norm of the embedding"),
    (first_norm, "not the L2 norm of the embedding"),
    (norm_of_something_else, "the norm of another tensor"),
    (a_map_as_output, "the output of the ONNX model is no embedding"),
    (overflow, "could leave 32 bits"),
    (two_images, "quantized in more than one way"),
]


@pytest.mark.parametrize(("build", "sentence"), REFUSALS, ids=[b.__name__ for b, _ in REFUSALS])
def test_refusal(build: Any, sentence: str) -> None:
    net, x = started(opset=21)
    y = build(net, x)
    last = any(n.op_type in ("Flatten", "MatMul", "Gemm") for n in net.nodes)
    output = y if last else net.head(net.qdq(y), 8, 8)
    model = net.model(output, ["a", "b", "c", "d"] if build is unflattened_product else "D")
    if build is foreign_domain:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refuse(model, sentence)


# --- anything -----------------------------------------------------------------------------------


def mutate(model: onnx.ModelProto, chance: random.Random) -> None:
    """Change one thing in the model, often into nonsense."""
    graph = model.graph
    node, tensor = chance.choice(graph.node), chance.choice(graph.initializer)
    array = numpy_helper.to_array(tensor)
    kind = chance.randrange(8)
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1:
        del node.input[chance.randrange(len(node.input)) :]
    elif kind == 2:
        names = [tensor.name, chance.choice(graph.node).output[0], "", "input"]
        node.input[chance.randrange(len(node.input))] = chance.choice(names)
    elif kind == 3:
        wrong = [array[None], array.reshape(-1), array.astype(np.int64), array.astype(np.uint8)]
        tensor.CopyFrom(numpy_helper.from_array(chance.choice(wrong), tensor.name))
    elif kind == 4:
        node.op_type = chance.choice(graph.node).op_type
    elif kind == 5 and node.attribute:
        node.attribute.remove(chance.choice(node.attribute))
    elif kind == 6:
        name = chance.choice(["axis", "group", "strides", "pads", "transB", "block_size"])
        value = chance.choice([-3, 0, 2, 10**9, [1, 1], [2, 0, 0, 2], []])
        set_attribute(node, name, value)
    else:
        tensor.raw_data = tensor.raw_data[: chance.randrange(5)]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_in_the_file_there_is_no_traceback(tmp_path: Path, seed: int) -> None:
    network = float_network(1, batch_norm=seed == 0, gemm=True)
    bases = [
        plain(seed, activation="prelu", unsigned=True),
        runtime_quantized(tmp_path, network, per_channel=True, unsigned=False),
    ]
    chance = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(150):
        model = onnx.ModelProto()
        model.CopyFrom(chance.choice(bases))
        for _ in range(chance.choice([1, 1, 2])):
            try:
                mutate(model, chance)
            except (ValueError, TypeError, IndexError, AttributeError):
                continue  # the change itself is impossible
        try:
            read_graph(model, PREPROCESSING)
            outcomes[True] += 1
        except BadInputError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 0


def test_a_network_without_an_integer_layer() -> None:
    net = Net(21)
    x = net.conv("input", 8, 3, 3, stride=2, quantized=False)
    scale, zero = net.const(np.float32(1 / 32)), net.const(np.int8(0), np.int8)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
    x = net.op("Conv", x, net.const(np.ones((8, 1, 8, 8)) / 64), group=8)
    model = net.model(net.op("Flatten", x))
    with pytest.raises(BadInputError, match="computes in integers"):
        read_graph(model, PREPROCESSING)
