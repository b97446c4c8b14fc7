"""QDQ files of every writer, judged by ONNX Runtime; and files that must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mfn_compile.arm import graph as ir
from mfn_compile.arm import oracle
from mfn_compile.arm.reader import read_graph, read_unfused
from tests.arm.agreement import assert_exact, compare, kinds
from tests.arm.qdq_files import (
    PREPROCESSING,
    Net,
    ended,
    float_network,
    images,
    normalized,
    plain,
    runtime_quantized,
    start,
)


@pytest.mark.parametrize("activation", ["relu6", "relu", "prelu"])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_grids_agree_bit_for_bit(activation: str, unsigned: bool, seed: int) -> None:
    model = plain(seed, activation=activation, unsigned=unsigned)
    assert_exact(model)
    assert kinds(model) == {"Input": 1, "Conv": 8}


@pytest.mark.parametrize("activation", ["relu6", "prelu"])
@pytest.mark.parametrize("unsigned", [False, True])
def test_other_scales_agree_layer_by_layer(activation: str, unsigned: bool) -> None:
    found = compare(plain(2, exact=False, activation=activation, unsigned=unsigned), images(3))
    assert found.rate < 3e-3
    assert found.largest <= 1
    assert found.cosine > 0.999


@pytest.mark.parametrize("opset", [13, 19, 21])
def test_opsets(opset: int) -> None:
    assert_exact(plain(opset=opset))


def test_path_and_model_give_the_same(tmp_path: Path) -> None:
    model = plain()
    onnx.save(model, tmp_path / "q.onnx")
    one, two = (read_graph(m, PREPROCESSING) for m in (model, tmp_path / "q.onnx"))
    for a, b in zip(one.nodes, two.nodes, strict=True):
        assert repr(a) == repr(b)


def test_input_table_and_colours() -> None:
    graph = read_graph(plain(), PREPROCESSING)
    first = graph.nodes[0]
    assert isinstance(first, ir.Input)
    assert first.channels == (2, 1, 0)
    assert first.table.dtype == np.int8
    assert first.table.shape == (3, 256)
    assert (graph.height, graph.width, graph.embedding) == (16, 16, 8)


def test_uint8_becomes_int8() -> None:
    for node in read_graph(plain(unsigned=True), PREPROCESSING).nodes[1:4]:
        assert isinstance(node, ir.Conv)
        assert isinstance(node.output_stage, ir.Requantize)
        assert node.output_stage.zero_point.tolist() == [-11] * len(node.bias)  # 117 - 128
        assert node.pad_value.tolist() == [-11] * len(node.pad_value)


def test_fused_conv_knows_which_operand_it_is() -> None:
    fused = [n for n in read_graph(plain(), PREPROCESSING).nodes if isinstance(n, ir.Conv)]
    adds = [n for n in fused if n.residual is not None]
    assert len(adds) == 1
    add = next(n for n in read_unfused(plain(), PREPROCESSING).nodes if isinstance(n, ir.Add))
    assert adds[0].output == add.output
    assert adds[0].residual_input == add.a  # the block's input; its convolution is operand b
    assert adds[0].residual is not None
    assert np.array_equal(adds[0].residual.scale_a, add.residual.scale_b)


# --- one pattern each -------------------------------------------------------------------------


def missing_zero_points(net: Net, x: str) -> str:
    return net.qdq(net.op("Relu", net.conv(x, 8, 8)), net.scale(1 / 40), zero=None)


def scales_of_one(net: Net, x: str) -> str:
    return net.qdq(net.conv(x, 8, 8), [1 / 64])


def asymmetric_weights(net: Net, x: str) -> str:
    return net.qdq(net.conv(x, 8, 8, zero=131, dtype=np.uint8, reach=90), 1 / 64)


def one_weight_scale(net: Net, x: str) -> str:
    return net.qdq(net.conv(x, 8, 8, per_channel=False, bias=False), 1 / 64)


def float_weights_behind_quantizers(net: Net, x: str) -> str:
    scale, zero = net.const(np.full(8, 1 / 128)), net.const(np.zeros(8), np.int8)
    weight = net.const(net.random.normal(0, 0.3, (8, 8, 1, 1)))
    codes = net.op("QuantizeLinear", weight, scale, zero, axis=0)
    weight = net.op("DequantizeLinear", codes, scale, zero, axis=0)
    return net.qdq(net.op("Conv", x, weight), 1 / 64)


def integer_bias(net: Net, x: str) -> str:
    weight = net.weights((8, 8, 1, 1))
    unit = net.scales[x] * net.scales[weight]
    bias = net.const(net.random.integers(-999, 999, 8), np.int32)
    bias = net.op("DequantizeLinear", bias, net.const(unit), axis=0)
    return net.qdq(net.op("Conv", x, weight, bias), 1 / 64)


def batch_norm_behind_conv(net: Net, x: str) -> str:
    return net.qdq(net.prelu(net.batch_norm(net.conv(x, 8, 8), 8, signs=True), 8), 1 / 32)


def batch_norm_of_nothing(net: Net, x: str) -> str:
    zero, one = net.const(np.zeros(8)), net.const(np.ones(8))
    shift = net.const(np.arange(-4, 4) / 8)
    y = net.op("BatchNormalization", net.conv(x, 8, 8), zero, shift, zero, one, epsilon=0.0)
    return net.qdq(y, 1 / 64)


def widest_weight_negated(net: Net, x: str) -> str:
    weight = np.full((8, 1, 1, 1), -128)
    scale = net.const(np.full(8, 1 / 128))
    weight_name = net.op("DequantizeLinear", net.const(weight, np.int8), scale, axis=0)
    y = net.op("Conv", x, weight_name, group=8)
    return net.qdq(net.op("Mul", y, net.const(-1.0)), 1 / 64)


def dead_channel(net: Net, x: str) -> str:
    # weights worth nothing beside the bias: its integer would not fit 32 bits
    scale = np.where(np.arange(8) == 3, 2.0**-40, 2.0**-9)
    weight = net.const(net.random.integers(-90, 90, (8, 8, 1, 1)), np.int8)
    weight = net.op("DequantizeLinear", weight, net.const(scale), axis=0)
    return net.qdq(net.op("Conv", x, weight, net.const(np.arange(8) / 16)), 1 / 64)


def several_activations(net: Net, x: str) -> str:
    y = net.relu6(net.op("Relu", net.conv(x, 8, 8)))
    return net.qdq(net.op("Clip", y, "", net.const(1.5)), 1 / 64, zero=-100)


def leaky_relu(net: Net, x: str) -> str:
    return net.qdq(net.op("LeakyRelu", net.conv(x, 8, 8), alpha=0.125), 1 / 64)


def quantizer_in_front_of_activation(net: Net, x: str) -> str:
    return net.qdq(net.prelu(net.qdq(net.conv(x, 8, 8), 1 / 64), 8), 1 / 50)


def batch_norm_alone(net: Net, x: str) -> str:
    return net.qdq(net.batch_norm(net.qdq(net.conv(x, 8, 8), 1 / 64), 8, signs=True), 1 / 50)


def arithmetic_alone(net: Net, x: str) -> str:
    y = net.op("Mul", x, net.const(net.random.normal(1, 0.5, (8, 1, 1))))
    y = net.op(
        "Sub", net.const(0.3), net.op("Add", y, net.const(net.random.normal(size=(1, 8, 1, 1))))
    )
    y = net.op("Div", net.op("Sub", y, net.const([0.7])), net.const([[[1.3]]]))
    return net.qdq(net.op("Relu", y), 1 / 30, zero=-128)


def requantizer(net: Net, x: str) -> str:
    return net.qdq(x, net.scale(1 / 50, 8), zero=7)


def standing_add(net: Net, x: str) -> str:
    return net.qdq(net.op("Relu", net.op("Add", x, x)), 1 / 16)


def two_convolutions_added(net: Net, x: str) -> str:
    a, b = (net.qdq(net.conv(x, 8, 8), 1 / 64, zero=z) for z in (5, -7))
    return net.qdq(net.prelu(net.op("Add", a, b), 8), 1 / 32)


def conv_is_first_operand(net: Net, x: str) -> str:
    return net.qdq(net.op("Add", net.qdq(net.conv(x, 8, 8), 1 / 64), x), 1 / 32)


def later_operand_is_no_conv(net: Net, x: str) -> str:
    a = net.qdq(net.conv(x, 8, 8), 1 / 64)
    b = net.qdq(net.prelu(x, 8), 1 / 64)
    return net.qdq(net.op("Add", a, b), 1 / 32)


def identities(net: Net, x: str) -> str:
    y = net.op("Dropout", net.op("Identity", net.conv(x, 8, 8)))
    y = net.op("Identity", net.qdq(net.op("Identity", y), 1 / 64))
    return net.qdq(y, 1 / 64)  # the same quantizer once more is nothing


def constants_in_nodes(net: Net, x: str) -> str:
    value = numpy_helper.from_array(np.asarray(1 / 64, np.float32))
    scale = net.op("Constant", value=value)
    low, high = net.op("Constant", value_float=0.25), net.op("Constant", value_float=1.5)
    y = net.op("Clip", net.conv(x, 8, 8), low, high)
    zero = net.op("Constant", value=numpy_helper.from_array(np.asarray(-9, np.int8)))
    codes = net.op("QuantizeLinear", y, scale, zero)
    return net.op("DequantizeLinear", codes, scale, zero)


def twice_quantized(net: Net, x: str) -> str:
    y = net.conv(x, 8, 8)
    return net.qdq(net.op("Add", net.qdq(y, 1 / 64), net.qdq(y, 1 / 64)), 1 / 32)


# What the graph must hold beside its Input.
CONV, LOOKUP = {"Conv": 4}, {"Conv": 4, "Lookup": 1}
PATTERNS = [
    (missing_zero_points, CONV),
    (scales_of_one, CONV),
    (asymmetric_weights, CONV),
    (one_weight_scale, CONV),
    (float_weights_behind_quantizers, CONV),
    (integer_bias, CONV),
    (batch_norm_behind_conv, CONV),
    (batch_norm_of_nothing, CONV),
    (widest_weight_negated, CONV),
    (dead_channel, CONV),
    (several_activations, CONV),
    (leaky_relu, CONV),
    (quantizer_in_front_of_activation, LOOKUP),
    (batch_norm_alone, LOOKUP),
    (arithmetic_alone, {"Conv": 3, "Lookup": 1}),
    (standing_add, {"Conv": 3, "Add": 1}),
    (two_convolutions_added, {"Conv": 5}),
    (conv_is_first_operand, CONV),
    (later_operand_is_no_conv, LOOKUP),
    (identities, CONV),
    (constants_in_nodes, CONV),
    (twice_quantized, {"Conv": 4, "Add": 1}),
]


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS, ids=[p.__name__ for p, _ in PATTERNS])
def test_pattern(pattern: Any, expected: dict[str, int]) -> None:
    net, x = start(4)
    model = ended(net, pattern(net, x))
    assert_exact(model)
    assert kinds(model) == {"Input": 1, **expected}


def test_requantization_alone_is_a_lookup() -> None:
    net, x = start()
    x = net.qdq(net.conv(requantizer(net, x), 8, 8, 3, groups=8), 1 / 64)
    model = ended(net, x)
    assert_exact(model)
    assert kinds(model) == {"Input": 1, "Conv": 4, "Lookup": 1}


def test_arithmetic_on_the_image_goes_into_the_table() -> None:
    net = Net(2)
    x = net.op("Mul", net.op("Sub", "input", net.const(0.1)), net.const([[[0.7]], [[1]], [[1.2]]]))
    x = net.qdq(net.conv(net.qdq(x, 1 / 64), 8, 3, 3, stride=2), 1 / 32)
    model = ended(net, x)
    assert_exact(model)
    assert kinds(model) == {"Input": 1, "Conv": 3}


def test_names_of_the_file_cannot_collide_with_made_up_ones() -> None:
    net, x = start(3)
    y = net.conv(net.relu6(net.conv(x, 8, 8, quantized=False)), 8, 8, quantized=False)
    model = ended(net, net.qdq(net.qdq(y, 1 / 64), 1 / 32))
    first, second = [n for n in model.graph.node if n.op_type == "QuantizeLinear"][2:4]
    made_up = f"{first.output[0]}_float"
    for node in model.graph.node:
        node.input[:] = [made_up if n == second.output[0] else n for n in node.input]
    second.output[0] = made_up
    graph = read_graph(model, PREPROCESSING)
    assert len(graph.tensors) == len(graph.nodes)
    assert oracle.run(graph, images(1)[0])[graph.output].any()


# --- other writers ------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize(("batch_norm", "gemm"), [(False, True), (True, False)])
def test_onnx_runtimes_quantizer(
    tmp_path: Path, per_channel: bool, unsigned: bool, batch_norm: bool, gemm: bool
) -> None:
    network = float_network(3, batch_norm=batch_norm, gemm=gemm)
    model = runtime_quantized(tmp_path, network, per_channel=per_channel, unsigned=unsigned)
    found = compare(model, images(3))
    assert found.rate < 1e-3
    assert found.largest <= 1
    assert found.cosine > 0.999
    assert kinds(model)["FloatConv"] == 0
    assert kinds(model)["Lookup"] > 0  # Q and DQ stand between Conv and its activation


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Any]:
    """A tiny MobileFaceNet as float ONNX and in torch, 32x32."""
    from mfn_compile.export.exporter import export
    from mfn_compile.export.fold import fold_batchnorm
    from mfn_compile.model.loader import load_checkpoint
    from tests.tiny import tiny_checkpoint

    folder = tmp_path_factory.mktemp("arm")
    loaded = load_checkpoint(tiny_checkpoint(folder / "tiny.safetensors", size=32))
    path = folder / export(loaded, folder).file
    return onnx.load(path), (fold_batchnorm(loaded.module), loaded.info.preprocessing)


def small_recipe(**ptq: Any) -> Any:
    from mfn_compile.recipe import Ptq, Recipe

    return Recipe(name="t", description="", ptq=Ptq(**ptq))


@pytest.mark.parametrize("preset", ["performance", "mixed"])
def test_our_quantizer(exported: tuple[onnx.ModelProto, Any], preset: str) -> None:
    from mfn_compile.progress import SilentProgress
    from mfn_compile.quantize.ptq import post_training_quantize, prepare

    fp32, (_, given) = exported
    rgb = images(12, size=32)
    recipe = small_recipe(preset=preset)
    batch = normalized(rgb, given)
    fp32 = prepare(fp32, batch, recipe)
    model = post_training_quantize(fp32, batch, recipe, "disable", SilentProgress())
    found = compare(model, rgb[:3], given)
    assert found.rate < 5e-3
    assert found.largest <= 1
    assert {type(n).__name__ for n in read_graph(model, given).nodes} == {"Input", "Conv"}


def test_torch_after_fine_tuning(exported: tuple[onnx.ModelProto, Any]) -> None:
    from mfn_compile.quantize.nncf_network import fake_quantized, to_qdq

    _, (module, given) = exported
    rgb = images(8, size=32)
    batch = normalized(rgb, given)
    model = to_qdq(fake_quantized(module, batch, small_recipe(), "disable"), batch[:1])
    found = compare(model, rgb[:3], given)
    assert found.rate < 5e-3
    assert found.largest <= 1
    assert {type(n).__name__ for n in read_graph(model, given).nodes} == {"Input", "Conv"}
